"""The quality table: every method on every data set, from committed experiments to docs/quality.md."""
