"""Other servers on the same weights, to compare the sidecar with: each a file that runs in an environment of its own, called over HTTP."""
