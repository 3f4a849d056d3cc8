"""ListMLE (Xia et al. 2008): the likelihood of the whole order of a batch under a Plackett-Luce model of the scores."""

from __future__ import annotations

import torch


def listmle_loss(scores: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean negative log likelihood per prompt of the order of `lengths`, the longest first.

    scores, lengths: float[batch]. Of prompts of equal length, the one that comes first counts as the longer.
    """
    ordered = scores[torch.argsort(lengths, descending=True, stable=True)]
    # logsumexp over each prompt and all that come after it.
    rest = torch.logcumsumexp(ordered.flip(0), dim=0).flip(0)
    return (rest - ordered).mean()
