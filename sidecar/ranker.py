"""Everything one bundle needs to score, as one value: what a later swap of bundles replaces."""

from dataclasses import dataclass
from pathlib import Path

from pars.v1 import bundle_pb2, ranker_pb2
from sidecar import golden
from sidecar.bundle import open_bundle
from sidecar.calibration import Calibrator
from sidecar.encoder import open_encoder
from sidecar.ngram_scorer import NgramScorer
from sidecar.scorer import ProviderChoice, Scorer
from sidecar.tokenization import PromptTokenizer


@dataclass(frozen=True, slots=True)
class TierScorer:
    """A scorer and the calibration of its scores. tier: as replies name it."""

    tier: ranker_pb2.Tier
    scorer: Scorer
    calibrator: Calibrator


@dataclass(frozen=True, slots=True)
class Ranker:
    """A verified, loaded and proven bundle. ngram is None when the bundle has only the encoder."""

    manifest: bundle_pb2.BundleManifest
    execution_provider: str
    tokenizer: PromptTokenizer
    encoder: TierScorer
    ngram: TierScorer | None

    @classmethod
    def load(cls, folder: Path, provider: ProviderChoice, threads: int, workers: int = 1) -> "Ranker":
        """Verify the bundle, open its session and replay its golden prompts in every tier. The rest as in open_encoder.

        Raises BundleError, ProviderError or WarmUpError.
        """
        bundle = open_bundle(folder)
        encoder = open_encoder(bundle, provider, workers=workers, threads=threads)
        golden.replay(bundle, encoder, "score")
        ngram = None
        if bundle.ngram_weights is not None:
            ngram_scorer = NgramScorer(bundle.ngram_weights)
            golden.replay(bundle, ngram_scorer, "ngram_score")
            ngram = TierScorer(ranker_pb2.TIER_NGRAM, ngram_scorer, Calibrator(bundle.manifest.ngram.calibration))
        return cls(
            manifest=bundle.manifest,
            execution_provider=encoder.provider,
            tokenizer=PromptTokenizer.for_bundle(bundle),
            encoder=TierScorer(ranker_pb2.TIER_ENCODER, encoder, Calibrator(bundle.manifest.encoder_calibration)),
            ngram=ngram,
        )
