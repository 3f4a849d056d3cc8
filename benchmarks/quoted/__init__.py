"""The figures that README and docs quote: written between their markers from benchmarks/results, and checked by a test."""
