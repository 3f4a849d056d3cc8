"""Golden prompts: the contract across machines. What a bundle scored when it was made, it must score wherever it is opened."""

from typing import Literal

from sidecar.bundle import Bundle
from sidecar.errors import ModelError, WarmUpError
from sidecar.scorer import Scorer
from sidecar.tokenization import PromptTokenizer

Column = Literal["score", "ngram_score"]

NGRAM_TOLERANCE = 1e-4
"""A dot product of 32-bit weights: no precision of the graph excuses more."""


def replay(bundle: Bundle, scorer: Scorer, column: Column) -> None:
    """Score every golden prompt, alone as it was when the bundle was made, and compare with that column of the manifest.

    Raises WarmUpError on the first score further away than `golden_tolerance` (NGRAM_TOLERANCE for the cheap tier), and when a
    prompt cannot be scored.
    """
    tokenizer = PromptTokenizer.for_bundle(bundle)
    tolerance = bundle.manifest.golden_tolerance if column == "score" else NGRAM_TOLERANCE
    for index, golden in enumerate(bundle.manifest.golden_prompts):
        wanted = float(getattr(golden, column))
        try:
            score = float(scorer.score(tokenizer.encode([golden.prompt]))[0])
        except ModelError as error:
            raise WarmUpError(f"golden prompt {index} cannot be scored: {error}") from error
        difference = abs(score - wanted)
        if not difference <= tolerance:
            raise WarmUpError(
                f"golden prompt {index}: {column} is {score:.6g} here and {wanted:.6g} in the bundle; "
                f"the difference {difference:.2g} exceeds the tolerance {tolerance:.2g}"
            )
