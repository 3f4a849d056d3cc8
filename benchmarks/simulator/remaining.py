"""How much of a response is left, as far as one can know: its length taken as log-normal, given that so much has come already.

A long response that goes on is more and more likely to go on: what is left falls at first, and rises once the median is passed.
"""

import math

from scipy.special import erfcx

from benchmarks.simulator.request import Estimate

Z90 = 1.2815515655446004
"""The 90th percentile of the normal distribution."""

LEAST_SIGMA = 0.05
"""Of the logarithm. Nobody knows a length to better than a twentieth, and a spread of zero could not be overrun."""

_HARDLY_BEGUN = -8.0
"""Standard deviations below the median: that so much has come says nothing."""


def mean_remaining(estimate: Estimate, made_tokens: int) -> float:
    """Expected tokens still to come after `made_tokens` of them. Median and 90th percentile of the estimate give the spread."""
    median = max(estimate.expected_tokens, 1.0)
    sigma = max(math.log(max(estimate.p90_tokens / median, 1.0)) / Z90, LEAST_SIGMA)
    if made_tokens > 0:
        z = math.log(made_tokens / median) / sigma
        if z > _HARDLY_BEGUN:
            # E[L | L > made] = made × Q(z - sigma)/Q(z) × exp(sigma z - sigma²/2), with Q the normal tail; scaled, so that it lasts.
            ratio = float(erfcx((z - sigma) / math.sqrt(2)) / erfcx(z / math.sqrt(2)))
            return made_tokens * (ratio - 1)
    return median * math.exp(sigma * sigma / 2) - made_tokens
