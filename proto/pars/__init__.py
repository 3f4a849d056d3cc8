"""What the packages of PARS sidecar agree on: the protocol (`pars.v1`), the text a ranker reads (`pars.text`), the features of
the cheap scorer (`pars.ngram`) and what a local address is (`pars.address`). Imports nothing; every other package may import it."""

DEFAULT_ADDRESS = "127.0.0.1:50151"
"""Where the sidecar listens and where clients look, unless told otherwise: `host:port`, or `unix:/path`."""
