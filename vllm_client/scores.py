"""What a client hands back: plain frozen values, checked before they are made."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from pars.v1 import ranker_pb2
from pars.v1.bundle_pb2 import BundleManifest


class Tier(IntEnum):
    """Which scorer answers. The numbers are those of the protocol."""

    ANY = ranker_pb2.TIER_UNSPECIFIED
    """In a request only: the server's choice, which is the encoder."""
    ENCODER = ranker_pb2.TIER_ENCODER
    """The ranker itself."""
    NGRAM = ranker_pb2.TIER_NGRAM
    """The linear scorer: tens of microseconds, weaker order."""


class Longer(IntEnum):
    """Which prompt of a pair has the longer expected response. The numbers are those of the protocol."""

    A = ranker_pb2.LONGER_A
    B = ranker_pb2.LONGER_B
    NEITHER = ranker_pb2.LONGER_NEITHER


@dataclass(frozen=True, slots=True)
class PromptScore:
    """What the ranker says of one prompt. Fields as in `pars.v1.PromptScore`."""

    score: float
    """Higher means a longer expected response. No unit, finite; only comparable within one bundle and one tier."""
    quantile: float
    """Of the score among the calibration prompts, in [0, 1]. Comparable across bundles and tiers; makes the priority."""
    expected_tokens: float
    """Median response length in tokens, not negative."""
    expected_tokens_p90: float
    """90th percentile of the response length in tokens, not negative."""
    prompt_tokens: int
    """Tokens of the prompt that the ranker read, in its own tokenizer."""
    truncated: bool
    """True when the ranker read only the beginning of the prompt."""
    tier: Tier
    """Who gave the score. Never `Tier.ANY`."""


class ServerTiming(NamedTuple):
    """Where a call's time went inside the server, in nanoseconds. Zero: less than its clock could see."""

    tokenize_time_ns: int
    queue_time_ns: int
    infer_time_ns: int


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """The answer to a list of prompts."""

    scores: tuple[PromptScore, ...]
    """Same length and order as the prompts."""
    bundle_id: str
    """The bundle that scored all of them."""
    timing: ServerTiming
    """Of the call; summed over the calls when a long list took several."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer for one pair of prompts."""

    longer: Longer
    score_a: PromptScore
    score_b: PromptScore
    expected_tokens_difference: float
    """expected_tokens of a minus that of b, in tokens. Can be zero although one score is higher: calibration has flat parts."""


@dataclass(frozen=True, slots=True)
class ComparedBatch:
    """The answer to a list of pairs."""

    comparisons: tuple[Comparison, ...]
    """Same length and order as the pairs."""
    bundle_id: str
    timing: ServerTiming


@dataclass(frozen=True, slots=True)
class ServedBundle:
    """What the server scores with."""

    manifest: BundleManifest
    """The bundle's own description. A protobuf message: read it, do not change it."""
    execution_provider: str
    """What the session really runs on, as ONNX Runtime names it, such as "CUDAExecutionProvider"."""
    max_prompts_per_call: int
    """Prompts the server takes in one `score` call, at least 1. `compare` takes half as many pairs."""
