"""What a ranker learns from: pure functions on tensors, one per file; objective.py is the list to choose from."""
