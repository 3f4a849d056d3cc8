"""Trains a ranker: prompts with response lengths come in, a checkpoint folder goes out.

Follow one prompt: `records` (a row) → `hub` / `local` (where rows come from) → `model_effects` (many models' lengths into one) →
`split` → `pairs` and `batches` → `ranker` + `loss` + `loop` → `calibrate`, `ngram_fit`, `evaluate` → `checkpoint`.
"""
