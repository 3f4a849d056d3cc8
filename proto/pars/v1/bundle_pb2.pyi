from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    PRECISION_FP32: _ClassVar[Precision]
    PRECISION_FP16: _ClassVar[Precision]
    PRECISION_INT8_DYNAMIC: _ClassVar[Precision]
    PRECISION_BF16: _ClassVar[Precision]
PRECISION_UNSPECIFIED: Precision
PRECISION_FP32: Precision
PRECISION_FP16: Precision
PRECISION_INT8_DYNAMIC: Precision
PRECISION_BF16: Precision

class BundleManifest(_message.Message):
    __slots__ = ("format_version", "bundle_id", "model_name", "files", "precision", "scores_depend_on_batch", "input", "encoder_calibration", "ngram", "golden_prompts", "golden_tolerance", "parity", "licence", "data_statement", "made_with")
    class MadeWithEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    SCORES_DEPEND_ON_BATCH_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    ENCODER_CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    NGRAM_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    DATA_STATEMENT_FIELD_NUMBER: _ClassVar[int]
    MADE_WITH_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    bundle_id: str
    model_name: str
    files: _containers.RepeatedCompositeFieldContainer[BundleFile]
    precision: Precision
    scores_depend_on_batch: bool
    input: ModelInput
    encoder_calibration: Calibration
    ngram: NgramScorer
    golden_prompts: _containers.RepeatedCompositeFieldContainer[GoldenPrompt]
    golden_tolerance: float
    parity: Parity
    licence: str
    data_statement: str
    made_with: _containers.ScalarMap[str, str]
    def __init__(self, format_version: _Optional[int] = ..., bundle_id: _Optional[str] = ..., model_name: _Optional[str] = ..., files: _Optional[_Iterable[_Union[BundleFile, _Mapping]]] = ..., precision: _Optional[_Union[Precision, str]] = ..., scores_depend_on_batch: bool = ..., input: _Optional[_Union[ModelInput, _Mapping]] = ..., encoder_calibration: _Optional[_Union[Calibration, _Mapping]] = ..., ngram: _Optional[_Union[NgramScorer, _Mapping]] = ..., golden_prompts: _Optional[_Iterable[_Union[GoldenPrompt, _Mapping]]] = ..., golden_tolerance: _Optional[float] = ..., parity: _Optional[_Union[Parity, _Mapping]] = ..., licence: _Optional[str] = ..., data_statement: _Optional[str] = ..., made_with: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BundleFile(_message.Message):
    __slots__ = ("path", "sha256", "size_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    sha256: str
    size_bytes: int
    def __init__(self, path: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class ModelInput(_message.Message):
    __slots__ = ("max_tokens", "max_chars", "pad_token_id", "input_names", "output_name")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHARS_FIELD_NUMBER: _ClassVar[int]
    PAD_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_NAMES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_NAME_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    max_chars: int
    pad_token_id: int
    input_names: _containers.RepeatedScalarFieldContainer[str]
    output_name: str
    def __init__(self, max_tokens: _Optional[int] = ..., max_chars: _Optional[int] = ..., pad_token_id: _Optional[int] = ..., input_names: _Optional[_Iterable[str]] = ..., output_name: _Optional[str] = ...) -> None: ...

class Calibration(_message.Message):
    __slots__ = ("scores", "quantiles", "expected_tokens", "expected_tokens_p90", "prompt_count", "length_tokenizer")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TOKENS_P90_FIELD_NUMBER: _ClassVar[int]
    PROMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    quantiles: _containers.RepeatedScalarFieldContainer[float]
    expected_tokens: _containers.RepeatedScalarFieldContainer[float]
    expected_tokens_p90: _containers.RepeatedScalarFieldContainer[float]
    prompt_count: int
    length_tokenizer: str
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., quantiles: _Optional[_Iterable[float]] = ..., expected_tokens: _Optional[_Iterable[float]] = ..., expected_tokens_p90: _Optional[_Iterable[float]] = ..., prompt_count: _Optional[int] = ..., length_tokenizer: _Optional[str] = ...) -> None: ...

class NgramScorer(_message.Message):
    __slots__ = ("path", "bucket_count", "calibration")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BUCKET_COUNT_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    path: str
    bucket_count: int
    calibration: Calibration
    def __init__(self, path: _Optional[str] = ..., bucket_count: _Optional[int] = ..., calibration: _Optional[_Union[Calibration, _Mapping]] = ...) -> None: ...

class GoldenPrompt(_message.Message):
    __slots__ = ("prompt", "score", "ngram_score")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    NGRAM_SCORE_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    score: float
    ngram_score: float
    def __init__(self, prompt: _Optional[str] = ..., score: _Optional[float] = ..., ngram_score: _Optional[float] = ...) -> None: ...

class Parity(_message.Message):
    __slots__ = ("prompt_count", "max_score_difference", "kendall_tau_b", "score_tolerance", "kendall_tau_b_floor", "max_batch_difference", "batch_difference_tolerance")
    PROMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_SCORE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    KENDALL_TAU_B_FIELD_NUMBER: _ClassVar[int]
    SCORE_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    KENDALL_TAU_B_FLOOR_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    BATCH_DIFFERENCE_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    prompt_count: int
    max_score_difference: float
    kendall_tau_b: float
    score_tolerance: float
    kendall_tau_b_floor: float
    max_batch_difference: float
    batch_difference_tolerance: float
    def __init__(self, prompt_count: _Optional[int] = ..., max_score_difference: _Optional[float] = ..., kendall_tau_b: _Optional[float] = ..., score_tolerance: _Optional[float] = ..., kendall_tau_b_floor: _Optional[float] = ..., max_batch_difference: _Optional[float] = ..., batch_difference_tolerance: _Optional[float] = ...) -> None: ...
