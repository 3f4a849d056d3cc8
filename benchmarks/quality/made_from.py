"""What a result depends on beside its settings."""

from __future__ import annotations

import hashlib
from pathlib import Path

from benchmarks.quality.datasets import RECIPES, Sets
from benchmarks.quality.experiment import Run


def made_from(run: Run, sets: Sets) -> dict[str, str]:
    """SHA-256 of what a run depends on beside its settings: a recipe's file, a checkpoint's weights. Changed ones make a result stale."""
    files = [
        RECIPES / f"{sets[name]['recipe']}.toml" for name in (run.dataset, run.unseen_by) if "recipe" in sets.get(name, {})
    ]
    if run.start:
        files.append(Path(run.start) / "model.safetensors")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
