from pars.v1 import bundle_pb2 as _bundle_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_UNSPECIFIED: _ClassVar[Tier]
    TIER_ENCODER: _ClassVar[Tier]
    TIER_NGRAM: _ClassVar[Tier]

class Longer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LONGER_UNSPECIFIED: _ClassVar[Longer]
    LONGER_A: _ClassVar[Longer]
    LONGER_B: _ClassVar[Longer]
    LONGER_NEITHER: _ClassVar[Longer]
TIER_UNSPECIFIED: Tier
TIER_ENCODER: Tier
TIER_NGRAM: Tier
LONGER_UNSPECIFIED: Longer
LONGER_A: Longer
LONGER_B: Longer
LONGER_NEITHER: Longer

class ScoreRequest(_message.Message):
    __slots__ = ("prompts", "tier", "ranker")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    RANKER_FIELD_NUMBER: _ClassVar[int]
    prompts: _containers.RepeatedScalarFieldContainer[str]
    tier: Tier
    ranker: str
    def __init__(self, prompts: _Optional[_Iterable[str]] = ..., tier: _Optional[_Union[Tier, str]] = ..., ranker: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scores", "bundle_id", "timing")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[PromptScore]
    bundle_id: str
    timing: Timing
    def __init__(self, scores: _Optional[_Iterable[_Union[PromptScore, _Mapping]]] = ..., bundle_id: _Optional[str] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class PromptScore(_message.Message):
    __slots__ = ("score", "quantile", "expected_tokens", "expected_tokens_p90", "prompt_tokens", "truncated", "tier")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    QUANTILE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TOKENS_P90_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    score: float
    quantile: float
    expected_tokens: float
    expected_tokens_p90: float
    prompt_tokens: int
    truncated: bool
    tier: Tier
    def __init__(self, score: _Optional[float] = ..., quantile: _Optional[float] = ..., expected_tokens: _Optional[float] = ..., expected_tokens_p90: _Optional[float] = ..., prompt_tokens: _Optional[int] = ..., truncated: bool = ..., tier: _Optional[_Union[Tier, str]] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("tokenize_time_ns", "queue_time_ns", "infer_time_ns")
    TOKENIZE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    INFER_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    tokenize_time_ns: int
    queue_time_ns: int
    infer_time_ns: int
    def __init__(self, tokenize_time_ns: _Optional[int] = ..., queue_time_ns: _Optional[int] = ..., infer_time_ns: _Optional[int] = ...) -> None: ...

class ScoreStreamRequest(_message.Message):
    __slots__ = ("id", "request", "timeout_ms", "more", "takes_more")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    TAKES_MORE_FIELD_NUMBER: _ClassVar[int]
    id: int
    request: ScoreRequest
    timeout_ms: int
    more: _containers.RepeatedCompositeFieldContainer[ScoreStreamRequest]
    takes_more: bool
    def __init__(self, id: _Optional[int] = ..., request: _Optional[_Union[ScoreRequest, _Mapping]] = ..., timeout_ms: _Optional[int] = ..., more: _Optional[_Iterable[_Union[ScoreStreamRequest, _Mapping]]] = ..., takes_more: bool = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("id", "response", "error", "more", "takes_more")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    TAKES_MORE_FIELD_NUMBER: _ClassVar[int]
    id: int
    response: ScoreResponse
    error: ItemError
    more: _containers.RepeatedCompositeFieldContainer[ScoreStreamResponse]
    takes_more: bool
    def __init__(self, id: _Optional[int] = ..., response: _Optional[_Union[ScoreResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ..., more: _Optional[_Iterable[_Union[ScoreStreamResponse, _Mapping]]] = ..., takes_more: bool = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class PromptPair(_message.Message):
    __slots__ = ("prompt_a", "prompt_b")
    PROMPT_A_FIELD_NUMBER: _ClassVar[int]
    PROMPT_B_FIELD_NUMBER: _ClassVar[int]
    prompt_a: str
    prompt_b: str
    def __init__(self, prompt_a: _Optional[str] = ..., prompt_b: _Optional[str] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("pairs", "tier", "ranker")
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    RANKER_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[PromptPair]
    tier: Tier
    ranker: str
    def __init__(self, pairs: _Optional[_Iterable[_Union[PromptPair, _Mapping]]] = ..., tier: _Optional[_Union[Tier, str]] = ..., ranker: _Optional[str] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("longer", "score_a", "score_b", "expected_tokens_difference")
    LONGER_FIELD_NUMBER: _ClassVar[int]
    SCORE_A_FIELD_NUMBER: _ClassVar[int]
    SCORE_B_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TOKENS_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    longer: Longer
    score_a: PromptScore
    score_b: PromptScore
    expected_tokens_difference: float
    def __init__(self, longer: _Optional[_Union[Longer, str]] = ..., score_a: _Optional[_Union[PromptScore, _Mapping]] = ..., score_b: _Optional[_Union[PromptScore, _Mapping]] = ..., expected_tokens_difference: _Optional[float] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("comparisons", "bundle_id", "timing")
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    comparisons: _containers.RepeatedCompositeFieldContainer[Comparison]
    bundle_id: str
    timing: Timing
    def __init__(self, comparisons: _Optional[_Iterable[_Union[Comparison, _Mapping]]] = ..., bundle_id: _Optional[str] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class GetBundleRequest(_message.Message):
    __slots__ = ("ranker",)
    RANKER_FIELD_NUMBER: _ClassVar[int]
    ranker: str
    def __init__(self, ranker: _Optional[str] = ...) -> None: ...

class GetBundleResponse(_message.Message):
    __slots__ = ("manifest", "execution_provider", "max_prompts_per_call", "ranker", "rankers")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPTS_PER_CALL_FIELD_NUMBER: _ClassVar[int]
    RANKER_FIELD_NUMBER: _ClassVar[int]
    RANKERS_FIELD_NUMBER: _ClassVar[int]
    manifest: _bundle_pb2.BundleManifest
    execution_provider: str
    max_prompts_per_call: int
    ranker: str
    rankers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, manifest: _Optional[_Union[_bundle_pb2.BundleManifest, _Mapping]] = ..., execution_provider: _Optional[str] = ..., max_prompts_per_call: _Optional[int] = ..., ranker: _Optional[str] = ..., rankers: _Optional[_Iterable[str]] = ...) -> None: ...
