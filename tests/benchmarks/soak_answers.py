"""Planned calls for three prompts, and what a sidecar would answer."""

from pathlib import Path

import numpy as np

from benchmarks.soak.mix import SCORE, Planned
from pars.v1 import ranker_pb2
from sidecar.bundle import open_bundle
from sidecar.calibration import Calibrator

ENCODER, NGRAM = ranker_pb2.TIER_ENCODER, ranker_pb2.TIER_NGRAM

SCORES = {ENCODER: (0.5, -1.0, 2.0), NGRAM: (0.25, 0.0, 1.0)}
"""Of three prompts."""


def planned(*positions: int, tier: int = 0, method: str = SCORE) -> Planned:
    return Planned("score", method, prompts=positions, tier=tier)


def response(bundle: Path, *positions: int, tier: "ranker_pb2.Tier" = ENCODER) -> ranker_pb2.ScoreResponse:
    """What a sidecar with this bundle would answer for these prompts."""
    manifest = open_bundle(bundle).manifest
    calibrator = Calibrator(manifest.encoder_calibration if tier == ENCODER else manifest.ngram.calibration)
    scores = [SCORES[tier][position] for position in positions]
    tokens = calibrator.apply(np.array(scores, dtype=np.float32))[1].tolist()
    return ranker_pb2.ScoreResponse(
        bundle_id=manifest.bundle_id,
        scores=[
            ranker_pb2.PromptScore(score=score, expected_tokens=expected, tier=tier)
            for score, expected in zip(scores, tokens, strict=True)
        ],
    )
