"""Trains a ranker: prompts with response lengths come in, a checkpoint folder goes out.

Follow one prompt: `records` (a row) → `hub` / `local` (where rows come from) → `audit` (is there enough?) → `model_effects` (many
models' lengths into one) → `split` → `pairs` and `batches` → `ranker` + `losses` + `loop` → `calibrate`, `ngram_fit`, `evaluate` →
`checkpoint` → `report` (what it learned).
"""
