"""Pure: from response lengths to pairs (longer, shorter) worth learning from; and the reference release's pair files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.errors import DataError

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
PromptPair = tuple[str, str]
"""The longer prompt first."""


def relative_gap(a: FloatArray, b: FloatArray) -> FloatArray:
    """|a − b| / max(a, b), broadcast; lengths are positive, so it lies in [0, 1)."""
    return np.asarray(np.abs(a - b) / np.maximum(a, b))


def all_pairs(lengths: FloatArray, min_gap: float) -> tuple[Rows, Rows]:
    """Every pair within one batch whose lengths differ, by a relative gap of at least `min_gap`.

    lengths: float[n]. Returns (longer, shorter), int64[pairs] each, indices into `lengths`.
    """
    longer_by = lengths[:, None] - lengths[None, :]
    admissible = (longer_by > 0) & (relative_gap(lengths[:, None], lengths[None, :]) >= min_gap)
    longer, shorter = np.nonzero(admissible)
    return longer, shorter


def clear_of_noise(
    lengths: FloatArray, noise: FloatArray, longer: Rows, shorter: Rows, deviations: float
) -> npt.NDArray[np.bool_]:
    """Which pairs differ by at least `deviations` standard deviations of the difference that repeated responses would show.

    lengths, noise: float[n], tokens and standard deviation of log tokens. longer, shorter: int64[pairs]. Returns bool[pairs].
    """
    gap = np.log(lengths[longer]) - np.log(lengths[shorter])
    clear: npt.NDArray[np.bool_] = gap >= deviations * np.hypot(noise[longer], noise[shorter])
    return clear


def sampled_pairs(lengths: FloatArray, *, per_prompt: int, min_gap: float, seed: int) -> tuple[Rows, Rows]:
    """The reference way: for each prompt, `per_prompt` random partners, kept when the gap is large enough.

    lengths: float[n]. Returns (longer, shorter), int64[pairs] each. A pair may occur twice, as in the reference.
    """
    rng = np.random.default_rng(seed)
    first = np.repeat(np.arange(len(lengths)), per_prompt)
    second = rng.integers(0, len(lengths), size=len(first))
    keep = (lengths[first] != lengths[second]) & (relative_gap(lengths[first], lengths[second]) >= min_gap)
    first, second = first[keep], second[keep]
    first_is_longer = lengths[first] > lengths[second]
    return np.where(first_is_longer, first, second), np.where(first_is_longer, second, first)


def write_pair_file(path: Path, pairs: Iterable[PromptPair], *, seed: int) -> int:
    """Write the reference format, a JSON list of {prompt_A, prompt_B, label} with label 1 when A's response is longer.

    Sides are swapped at random, so that the label carries information. Returns the number of pairs.
    """
    rng = np.random.default_rng(seed)
    rows = [
        {"prompt_A": longer, "prompt_B": shorter, "label": 1} if swap else {"prompt_A": shorter, "prompt_B": longer, "label": 0}
        for (longer, shorter), swap in ((pair, rng.random() < 0.5) for pair in pairs)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=0), encoding="utf-8")
    return len(rows)


def read_pair_file(path: Path) -> list[PromptPair]:
    """Read the reference format. Labels may be 1 and 0, or 1 and -1 as torch's margin loss takes them."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a non-empty list of {{prompt_A, prompt_B, label}}")
    return [_pair(row, f"{path}: pair {number}") for number, row in enumerate(rows)]


def _pair(row: object, where: str) -> PromptPair:
    if not isinstance(row, dict) or not {"prompt_A", "prompt_B", "label"} <= row.keys():
        raise DataError(f"{where} lacks prompt_A, prompt_B or label")
    first, second, label = row["prompt_A"], row["prompt_B"], row["label"]
    if not isinstance(first, str) or not isinstance(second, str):
        raise DataError(f"{where}: prompts must be texts")
    if label not in (1, 0, -1):
        raise DataError(f"{where}: label must be 1 (A is longer) or 0 (B is longer), got {label!r}")
    return (first, second) if label == 1 else (second, first)
