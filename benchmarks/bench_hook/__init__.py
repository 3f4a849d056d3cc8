"""`make bench-hook`: the hook's own cost for a request; driver runs in vLLM's environment."""
