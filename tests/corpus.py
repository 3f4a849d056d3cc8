"""A made-up corpus that a tiny ranker can learn, and the settings it learns it with in about two seconds."""

from __future__ import annotations

import random
from pathlib import Path

from trainer.config import TrainConfig
from trainer.records import Records

TOPICS = ("rivers", "music", "bridges", "insects", "trade", "planets", "bread", "maps", "glass", "trains", "poetry", "storms")
KINDS = (
    # How a prompt begins, and how many tokens its response typically has.
    ("Name one example of", 6),
    ("Is it true or false that people like", 12),
    ("Define in one sentence:", 30),
    ("Summarise briefly the history of", 90),
    ("Explain step by step the science of", 240),
    ("Write a long and detailed essay about", 700),
)


def make_records(count: int, *, seed: int = 0) -> Records:
    """Prompts whose wording decides the response length, up to 20% noise: what a ranker can learn, and a tiny one does."""
    rng = random.Random(seed)
    prompts: dict[str, float] = {}
    while len(prompts) < count:
        opening, tokens = rng.choice(KINDS)
        prompt = f"{opening} {rng.choice(TOPICS)} and {rng.choice(TOPICS)}, number {rng.randrange(10_000)}"
        prompts[prompt] = max(round(tokens * rng.uniform(0.8, 1.2)), 1)
    return Records.build(list(prompts), list(prompts.values()), source="synthetic")


def tiny_config(backbone: Path, **changes: object) -> TrainConfig:
    """A configuration that trains in about two seconds."""
    settings: dict[str, object] = {
        "backbone": str(backbone),
        "max_tokens": 32,
        "batch_prompts": 16,
        "bucket_batches": 4,
        "epochs": 4,
        "learning_rate": 3e-3,
        "evaluations_per_epoch": 2,
        "ngram_buckets": 1024,
        # The corpus is templates; grouped by similarity, a whole kind of prompt would fall on one side.
        "similarity": 0.0,
        "precision": "fp32",
    }
    return TrainConfig(**{**settings, **changes})  # type: ignore[arg-type]
