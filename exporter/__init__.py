"""Turns a checkpoint folder into a bundle folder, and proves it through the code that will serve it.

Follow it: `export` (the whole way) → `graph` (Optimum) → `precision` (fp16, int8, bf16) → `parity` (against PyTorch, on `probe_prompts`) →
`bundle_writer` (files, hashes, manifest).
"""
