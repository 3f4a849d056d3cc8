"""Pure: is an answer the right one? Against the prompts' own scores, and the bundles that may answer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from benchmarks.soak.mix import CHECK, COMPARE, GET_BUNDLE, Planned
from pars.v1 import bundle_pb2, ranker_pb2
from sidecar.bundle import MANIFEST_FILE
from sidecar.calibration import Calibrator

NGRAM, ENCODER = ranker_pb2.TIER_NGRAM, ranker_pb2.TIER_ENCODER

SCORE_TOLERANCE = 2e-3
"""Beside the bundle's own golden tolerance: what a batch's other prompts may change in a score."""

TOKENS_TOLERANCE = 1e-3
"""Relative. Another bundle's expected tokens are off by a factor."""


class Known:
    """The bundles that may answer, by their ids, and what every prompt of the pool scores in each tier (the same in all of them).

    bundles: folders. Raises OSError and ValueError for a manifest that cannot be read.
    """

    def __init__(self, bundles: Sequence[Path]) -> None:
        self._calibrators: dict[tuple[str, int], Calibrator] = {}
        self.tolerance = SCORE_TOLERANCE
        for folder in bundles:
            parsed = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
            manifest = json_format.ParseDict(parsed, bundle_pb2.BundleManifest())
            self._calibrators[manifest.bundle_id, ENCODER] = Calibrator(manifest.encoder_calibration)
            if manifest.HasField("ngram"):
                self._calibrators[manifest.bundle_id, NGRAM] = Calibrator(manifest.ngram.calibration)
            self.tolerance = max(self.tolerance, manifest.golden_tolerance)
        self.bundle_ids = {bundle_id for bundle_id, _ in self._calibrators}
        self._scores: Mapping[int, np.ndarray] = {}

    def learn(self, scores: Mapping[int, Sequence[float]]) -> None:
        """The pool's scores by tier, as an idle server gave them."""
        self._scores = {tier: np.asarray(values) for tier, values in scores.items()}

    def fault(self, planned: Planned, reply: bytes) -> str | None:
        """What is wrong with an OK reply; None when nothing is. Never quotes a prompt."""
        if planned.method == CHECK:
            return None if reply == b"\x08\x01" else "health is not SERVING"
        if planned.method == GET_BUNDLE:
            bundle_id = ranker_pb2.GetBundleResponse.FromString(reply).manifest.bundle_id
            return None if bundle_id in self.bundle_ids else f"GetBundle names {bundle_id}"
        if planned.method == COMPARE:
            return self._compare_fault(planned, ranker_pb2.CompareResponse.FromString(reply))
        response = ranker_pb2.ScoreResponse.FromString(reply)
        return self._scores_fault(planned, response.scores, response.bundle_id)

    def _compare_fault(self, planned: Planned, response: ranker_pb2.CompareResponse) -> str | None:
        for each in response.comparisons:
            a, b = each.score_a.score, each.score_b.score
            longer = ranker_pb2.LONGER_A if a > b else ranker_pb2.LONGER_B if b > a else ranker_pb2.LONGER_NEITHER
            if each.longer != longer:
                return "a comparison contradicts its scores"
        scores = [score for each in response.comparisons for score in (each.score_a, each.score_b)]
        return self._scores_fault(planned, scores, response.bundle_id)

    def _scores_fault(self, planned: Planned, scores: Sequence[ranker_pb2.PromptScore], bundle_id: str) -> str | None:
        if len(scores) != len(planned.prompts):
            return f"{len(scores)} scores for {len(planned.prompts)} prompts"
        tier = scores[0].tier
        if len({each.tier for each in scores}) > 1:
            return "tiers are mixed within an answer"
        if planned.tier and tier != planned.tier:
            return f"tier {tier} answers where {planned.tier} was asked for"
        if (bundle_id, tier) not in self._calibrators:
            return f"bundle {bundle_id}, tier {tier} answers"
        values = np.array([each.score for each in scores], dtype=np.float32)
        off = float(np.abs(values - self._scores[tier][list(planned.prompts)]).max())
        if not off <= self.tolerance:
            return f"a score of tier {tier} is off by {off:.3g}"
        expected = self._calibrators[bundle_id, tier].apply(values)[1]
        if not np.allclose([each.expected_tokens for each in scores], expected, rtol=TOKENS_TOLERANCE, atol=TOKENS_TOLERANCE):
            return f"expected tokens are not those of bundle {bundle_id}"
        return None
