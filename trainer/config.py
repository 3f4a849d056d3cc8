"""Every knob of a training run, with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass, fields

from trainer.errors import ConfigError
from trainer.losses.names import LOSSES

PAIR_MODES = ("in_batch", "file")
TRUNCATIONS = ("head", "head_tail")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """Defaults are the reference release's where it has the knob (arXiv 2510.03243), except the backbone and `pairs`."""

    backbone: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hugging Face name or folder of the encoder. MiniLM-L6: a fifth of BERT-base's size."""
    max_tokens: int = 128
    """Tokens the ranker reads per prompt, special ones included. Cost grows with it; what is asked stands at the beginning."""
    truncation: str = "head"
    """What is kept of a longer prompt: its first tokens, or the first and the last half of `max_tokens` each. A bundle can only say
    the first, so the second is for comparisons."""
    layers: int = 0
    """Keep this many layers of the encoder, from the bottom. 0: all."""
    loss: str = "margin"
    """What is minimised; trainer/losses/objective.py lists the choices."""
    pairs: str = "in_batch"
    """`in_batch`: every admissible pair inside a batch, each prompt encoded once. `file`: sampled pairs from a pair file."""
    min_gap: float = 0.2
    """δ: pairs closer than this relative difference in length teach mostly noise. 0 keeps every pair with a difference."""
    noise_gap: float = 0.0
    """An adaptive δ: pairs whose log lengths differ by less than this many standard deviations of what responses to one prompt differ by
    teach mostly noise. Needs prompts that one model answered more than once. 0 switches it off."""
    cross_source_weight: float = 1.0
    """Weight of a pair of prompts from two sources; one from the same source counts 1. In a mixture of data sets most pairs cross, and
    what they teach first is to tell the sets apart."""
    margin: float = 1.0
    """How far apart the two scores of a pair should be. Sets the unit of the score, nothing else."""
    batch_prompts: int = 128
    """Prompts per step and device (in file mode, pairs). In-batch pairs grow with its square."""
    bucket_batches: int = 16
    """Batches that are sorted by length together, so that little is padded. 1 switches sorting off."""
    epochs: int = 3
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    """Share of all steps in which the learning rate rises; it falls linearly to zero afterwards."""
    clip_norm: float = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    precision: str = "auto"
    """`auto`: bf16 autocast where it is faster (CUDA with bf16, CPUs with AMX), else fp32."""
    seed: int = 0
    validation_share: float = 0.1
    test_share: float = 0.1
    similarity: float = 0.8
    """Near-duplicates from this similarity stay on one side of the split; see split.py. 0 switches it off."""
    validation_prompts: int = 2000
    """At most this many validation prompts choose the checkpoint; all of them calibrate."""
    evaluations_per_epoch: int = 4
    ngram_buckets: int = 65_536
    """Hash buckets of the cheap scorer; 65,536 floats are 256 kB. A power of two."""
    max_train_prompts: int = 0
    """Train on at most this many prompts, chosen by seed. 0: all."""

    def __post_init__(self) -> None:
        checks = (
            (self.pairs in PAIR_MODES, f"pairs must be one of {', '.join(PAIR_MODES)}"),
            (self.truncation in TRUNCATIONS, f"truncation must be one of {', '.join(TRUNCATIONS)}"),
            (self.loss in LOSSES, f"loss must be one of {', '.join(LOSSES)}"),
            (self.layers >= 0, "layers must not be negative"),
            (0 <= self.cross_source_weight <= 1, "cross_source_weight must lie in [0, 1]"),
            (self.noise_gap >= 0, "noise_gap must not be negative"),
            (self.precision in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}"),
            (self.max_tokens >= 4, "max_tokens must be at least 4"),
            (0 <= self.min_gap < 1, "min_gap must lie in [0, 1)"),
            (self.margin > 0, "margin must be positive"),
            (self.batch_prompts >= 2 or self.pairs == "file", "batch_prompts must be at least 2: one prompt makes no pair"),
            (self.batch_prompts >= 1, "batch_prompts must be at least 1"),
            (self.bucket_batches >= 1, "bucket_batches must be at least 1"),
            (self.epochs >= 1, "epochs must be at least 1"),
            (self.learning_rate > 0, "learning_rate must be positive"),
            (0 <= self.warmup_share < 1, "warmup_share must lie in [0, 1)"),
            (self.clip_norm >= 0, "clip_norm must not be negative"),
            (self.validation_share > 0 and self.test_share > 0, "validation_share and test_share must be positive"),
            (self.validation_share + self.test_share < 1, "validation_share + test_share must be below 1"),
            (0 <= self.similarity <= 1, "similarity must lie in [0, 1]"),
            (self.validation_prompts >= 2, "validation_prompts must be at least 2"),
            (self.evaluations_per_epoch >= 1, "evaluations_per_epoch must be at least 1"),
            (
                self.ngram_buckets >= 2 and not self.ngram_buckets & (self.ngram_buckets - 1),
                "ngram_buckets must be a power of two",
            ),
            (self.max_train_prompts >= 0, "max_train_prompts must not be negative"),
        )
        for holds, message in checks:
            if not holds:
                raise ConfigError(message)

    @classmethod
    def for_own_data(cls) -> TrainConfig:
        """What `trainer train --records` starts from: minutes on a laptop's CPU for 20,000 short prompts, where the defaults above, the
        reference's, take three passes at a rate that needs more of them.

        Batch, epochs and learning rate are those of the recipes for single sets (trainer/recipes/alpaca_*.toml). Fewer validation prompts
        choose the checkpoint: scoring 2,000 of them eight times would be a sixth of the work of training.
        """
        return cls(batch_prompts=32, epochs=2, learning_rate=2e-4, validation_prompts=1000)

    @classmethod
    def from_mapping(cls, values: dict[str, object]) -> TrainConfig:
        """Build from a recipe's table; unknown names and wrong types are errors, not ignored."""
        known = {field.name: type(field.default) for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"unknown setting {name!r}; known: {', '.join(known)}")
            fits = isinstance(value, (int, float)) if known[name] is float else type(value) is known[name]
            if not fits:
                raise ConfigError(f"setting {name!r} must be of type {known[name].__name__}, got {value!r}")
        return cls(**values)  # type: ignore[arg-type]  # checked just above
