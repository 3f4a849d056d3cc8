"""Does the bundle say what PyTorch says? Asked through the sidecar's own tokenizer and session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from exporter.errors import ParityError
from exporter.precision import Precision
from exporter.probe_prompts import PROBE_PROMPTS
from pars.v1 import bundle_pb2
from sidecar.bundle import Bundle
from sidecar.scorer import Scorer
from sidecar.tokenization import PromptTokenizer
from trainer.ranker import Ranker

FloatArray = npt.NDArray[np.float64]

BATCH_DIFFERENCE_TOLERANCE = 1e-4
"""In standard deviations of the scores. Summation order alone moves fp32 scores by about a hundredth of this."""
MIXED_BATCH = 8


@dataclass(frozen=True)
class Probe:
    """Scores of the probe prompts. spread: standard deviation of the PyTorch scores, the unit of all tolerances."""

    torch_scores: FloatArray
    spread: float


def probe(ranker: Ranker) -> Probe:
    """Score the probe prompts in PyTorch, fp32. Raises ParityError when the ranker gives all prompts the same score."""
    # One by one: two prompts that read the same must score the same here as well, or the ties would count against the graph.
    scores = np.concatenate([ranker.score([ids]) for ids in ranker.tokenize(PROBE_PROMPTS)])
    spread = float(scores.std())
    if not np.isfinite(scores).all() or spread == 0.0:
        raise ParityError("the checkpoint scores all probe prompts the same, or not at all: it is not a trained ranker")
    return Probe(scores, spread)


def check_parity(ranker: Ranker, reference: Probe, bundle: Bundle, scorer: Scorer, precision: Precision) -> bundle_pb2.Parity:
    """Token ids, then score values, then order. Returns the figures for the manifest; raises ParityError."""
    tokenized = PromptTokenizer.for_bundle(bundle).encode(PROBE_PROMPTS)
    for prompt, served, trained in zip(PROBE_PROMPTS, tokenized, ranker.tokenize(PROBE_PROMPTS), strict=True):
        if not np.array_equal(served.token_ids, trained):
            raise ParityError(
                f"the serving tokenizer reads {prompt[:40]!r} as {served.token_ids[:8]}…, training read {trained[:8]}…"
            )
    alone = np.array([float(scorer.score([prompt])[0]) for prompt in tokenized])
    batched = np.concatenate(
        [scorer.score(tokenized[start : start + MIXED_BATCH]) for start in range(0, len(tokenized), MIXED_BATCH)]
    ).astype(np.float64)
    parity = bundle_pb2.Parity(
        prompt_count=len(tokenized),
        max_score_difference=float(np.abs(alone - reference.torch_scores).max()),
        kendall_tau_b=float(kendalltau(alone, reference.torch_scores).statistic),
        score_tolerance=precision.score_tolerance * reference.spread,
        kendall_tau_b_floor=precision.tau_b_floor,
        max_batch_difference=float(np.abs(alone - batched).max()),
        batch_difference_tolerance=BATCH_DIFFERENCE_TOLERANCE * reference.spread,
    )
    judge(parity)
    return parity


def judge(parity: bundle_pb2.Parity) -> None:
    """Raise ParityError when a figure misses its tolerance."""
    if not parity.max_score_difference <= parity.score_tolerance:
        raise ParityError(
            f"a score differs from PyTorch by {parity.max_score_difference:.3g}, allowed {parity.score_tolerance:.3g}"
        )
    if not parity.kendall_tau_b >= parity.kendall_tau_b_floor:
        raise ParityError(
            f"the order agrees with PyTorch to tau {parity.kendall_tau_b:.4f}, wanted {parity.kendall_tau_b_floor}"
        )
