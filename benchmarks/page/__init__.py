"""docs/benchmarks.md and its plots, from benchmarks/results and nothing else; written by `python -m benchmarks.quoted`."""
