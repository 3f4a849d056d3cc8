"""How much is measured: everything, or as little as shows that it works."""

from dataclasses import dataclass
from typing import NamedTuple


class Shape(NamedTuple):
    """Of one run: prompts and tokens of each, padding included."""

    batch_prompts: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of all parts.

    prompts: made up from a seed. cell_s: of each variant in each shape. floor_s: of each of the two floors. warm_up_s, calls_s: of each
    RPC case; calls_per_s: single prompts, arriving whether answered or not. batches: prompts per call of the closed loops, with
    batch_callers calls in flight; floor_batch_prompts: of the floor beside them.
    """

    prompts: int
    parity_prompts: int
    batch_sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    cell_s: float
    tensorrt_shapes: tuple[Shape, ...]
    floor_s: float
    floor_batch_prompts: int
    warm_up_s: float
    calls_s: float
    calls_per_s: float
    batches: tuple[int, ...]
    batch_callers: int

    def shapes(self, max_tokens: int) -> list[Shape]:
        """The grid, without what is longer than the bundle reads."""
        return [Shape(batch, length) for length in self.lengths if length <= max_tokens for batch in self.batch_sizes]


FULL = Plan(
    prompts=1_024,
    parity_prompts=256,
    batch_sizes=(1, 8, 32, 128),
    lengths=(16, 32, 64, 128),
    cell_s=0.2,
    tensorrt_shapes=(Shape(1, 32), Shape(32, 32), Shape(128, 32)),
    floor_s=3.0,
    floor_batch_prompts=128,
    warm_up_s=2.0,
    calls_s=10.0,
    calls_per_s=1_000.0,
    batches=(128, 256),
    batch_callers=16,
)

SMOKE = Plan(
    prompts=32,
    parity_prompts=16,
    batch_sizes=(1, 4),
    lengths=(8,),
    cell_s=0.01,
    tensorrt_shapes=(Shape(1, 8),),
    floor_s=0.05,
    floor_batch_prompts=8,
    warm_up_s=0.2,
    calls_s=0.4,
    calls_per_s=50.0,
    batches=(8,),
    batch_callers=2,
)
