"""Open and verify a bundle folder. Everything about it is checked here, before a byte of it reaches a runtime.

One fault, one message: each BundleError names the folder, the file and what is wrong with it.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from google.protobuf import json_format

from pars import ngram
from pars.v1 import bundle_pb2
from sidecar.calibration import Calibrator
from sidecar.errors import BundleError

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
NGRAM_FILE = "ngram.npy"
MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1

KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MIN_MAX_TOKENS = 4
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
"""A manifest is a few kilobytes; a bound keeps a wrong file from being read into memory whole."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle. ngram_weights: float32[weight_count(bucket_count)], None when the bundle has only the encoder."""

    folder: Path
    manifest: bundle_pb2.BundleManifest
    ngram_weights: ngram.Weights | None

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL_FILE

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / TOKENIZER_FILE

    @property
    def bundle_id(self) -> str:
        return self.manifest.bundle_id


def bundle_id_of(manifest_json: dict[str, Any]) -> str:
    """The content-addressed id of a manifest given as parsed protobuf JSON: it covers everything except `bundleId` itself."""
    content = {key: value for key, value in manifest_json.items() if key != "bundleId"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def open_bundle(folder: Path) -> Bundle:
    """Read the manifest, verify every file against it and load the n-gram weights.

    Raises BundleError with one clear message for each kind of damage.
    """
    # A link that is moved to another bundle from here on must not mix the two.
    folder = folder.resolve()
    try:
        manifest = _read_manifest(folder / MANIFEST_FILE)
        _check_fields(manifest)
        for file in manifest.files:
            _check_file(folder, file)
        weights = _load_ngram(folder / manifest.ngram.path, manifest.ngram) if manifest.HasField("ngram") else None
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {error}") from error.__cause__
    except OSError as error:
        raise BundleError(f"bundle {folder}: {error.filename or 'a file'} cannot be read: {error.strerror}") from error
    return Bundle(folder=folder, manifest=manifest, ngram_weights=weights)


def _read_manifest(path: Path) -> bundle_pb2.BundleManifest:
    if not path.parent.is_dir():
        raise BundleError("no such folder")
    if not path.is_file():
        raise BundleError(f"no {MANIFEST_FILE} in it, so it is not a bundle")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_FILE} is larger than {MAX_MANIFEST_BYTES} bytes, so it is not a manifest")
    try:
        parsed = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST_FILE} is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise BundleError(f"{MANIFEST_FILE} is not a JSON object")
    try:
        # JSON can spell half a character, "\ud800"; as a key it makes protobuf raise a SystemError.
        json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST_FILE} cannot be written as UTF-8: {type(error).__name__}") from error
    # The version comes first: of another version nothing else is known, so nothing else may be said.
    version = parsed.get("formatVersion")
    if version != FORMAT_VERSION:
        raise BundleError(f"format_version is {version}, this sidecar reads {FORMAT_VERSION}")
    try:
        manifest = json_format.ParseDict(parsed, bundle_pb2.BundleManifest())
    except Exception as error:
        # ParseError nearly always; an infinity where an enum is wanted comes through as OverflowError.
        raise BundleError(f"{MANIFEST_FILE} is not a BundleManifest: {error}") from error
    expected_id = bundle_id_of(parsed)
    if manifest.bundle_id != expected_id:
        raise BundleError(
            f"bundle_id is {manifest.bundle_id!r} but the manifest's content gives {expected_id!r}: it was edited after export"
        )
    return manifest


def _check_fields(manifest: bundle_pb2.BundleManifest) -> None:
    _check_files_list(manifest)
    _check_input(manifest.input)
    if manifest.precision not in bundle_pb2.Precision.values() or manifest.precision == bundle_pb2.PRECISION_UNSPECIFIED:
        raise BundleError("precision is not set to a known value")
    _check_calibration("encoder_calibration", manifest.encoder_calibration)
    if manifest.HasField("ngram"):
        _check_calibration("ngram.calibration", manifest.ngram.calibration)
    _check_golden(manifest)


def _check_files_list(manifest: bundle_pb2.BundleManifest) -> None:
    paths = [file.path for file in manifest.files]
    for path in paths:
        # The pattern leaves no room for separators, "..", drive letters or NUL bytes.
        if not _PLAIN_NAME.fullmatch(path):
            raise BundleError(f"file path {path!r} is not a plain file name")
    if len(set(paths)) != len(paths):
        raise BundleError("files lists a path twice")
    needed = [MODEL_FILE, TOKENIZER_FILE]
    if manifest.HasField("ngram"):
        needed.append(manifest.ngram.path)
    for path in needed:
        if path not in paths:
            raise BundleError(f"files does not list {path!r}")


def _check_input(model_input: bundle_pb2.ModelInput) -> None:
    if model_input.max_tokens < MIN_MAX_TOKENS:
        raise BundleError(f"input.max_tokens is {model_input.max_tokens}, at least {MIN_MAX_TOKENS} are needed")
    if model_input.max_chars < 1:
        raise BundleError("input.max_chars is not set")
    names = list(model_input.input_names)
    if "input_ids" not in names or len(set(names)) != len(names) or not set(names) <= set(KNOWN_INPUTS):
        raise BundleError(f"input.input_names is {names}; known are {list(KNOWN_INPUTS)}, input_ids is needed, each once")
    if not model_input.output_name:
        raise BundleError("input.output_name is not set")


def _check_calibration(name: str, calibration: bundle_pb2.Calibration) -> None:
    try:
        Calibrator(calibration)
    except ValueError as error:
        raise BundleError(f"{name}: {error}") from error


def _check_golden(manifest: bundle_pb2.BundleManifest) -> None:
    if not manifest.golden_prompts:
        raise BundleError("golden_prompts is empty, so nothing proves that the scores are right")
    if not (math.isfinite(manifest.golden_tolerance) and manifest.golden_tolerance > 0):
        raise BundleError("golden_tolerance must be a number greater than zero")
    for golden in manifest.golden_prompts:
        if golden.HasField("ngram_score") != manifest.HasField("ngram"):
            raise BundleError("golden_prompts must have an ngram_score exactly when the bundle has an n-gram scorer")
        if not (math.isfinite(golden.score) and math.isfinite(golden.ngram_score)):
            raise BundleError("golden_prompts has a score that is not finite")


def _check_file(folder: Path, file: bundle_pb2.BundleFile) -> None:
    path = folder / file.path
    if not path.exists():
        raise BundleError(f"{file.path} is missing")
    # Links inside the folder are fine (a Kubernetes volume is made of them), links out of it are not.
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{file.path} is a link that leaves the folder")
    if not path.is_file():
        raise BundleError(f"{file.path} is not a regular file")
    size = path.stat().st_size
    if size != file.size_bytes:
        raise BundleError(f"{file.path} has {size} bytes, the manifest says {file.size_bytes}")
    if not _SHA256.fullmatch(file.sha256):
        raise BundleError(f"{file.path}: the manifest's sha256 is not 64 lower-case hex digits")
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.sha256:
        raise BundleError(f"{file.path} has other content than the manifest says (sha256 {digest[:12]}…)")


def _load_ngram(path: Path, scorer: bundle_pb2.NgramScorer) -> ngram.Weights:
    try:
        count = ngram.weight_count(scorer.bucket_count)
    except ValueError as error:
        raise BundleError(f"ngram: {error}") from error
    with path.open("rb") as content:
        # Not np.load or read_array: a header may claim terabytes, and they would be allocated before anybody compares.
        shape, dtype = _read_npy_header(content, path.name)
        if dtype != np.float32 or shape != (count,):
            raise BundleError(f"{path.name} is {dtype}{list(shape)}, float32[{count}] is wanted")
        if path.stat().st_size < content.tell() + count * dtype.itemsize:
            raise BundleError(f"{path.name} is not a NumPy vector of n-gram weights: it ends before the last of {count}")
        weights = np.fromfile(content, dtype=np.float32, count=count)
    if not np.all(np.isfinite(weights)):
        raise BundleError(f"{path.name} holds values that are not finite")
    return weights


def _read_npy_header(content: BinaryIO, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that follows. np.save writes version 1.0 for anything this small."""
    try:
        version = np.lib.format.read_magic(content)
        if version != (1, 0):
            raise ValueError(f"format version {version} is not (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(content)
        if dtype.hasobject:
            raise ValueError("it holds pickled objects")
    except OSError:
        raise
    except Exception as error:
        # The header is Python source. What tokenizing, parsing and sorting strange source can raise comes through: SyntaxError,
        # TokenError, TypeError, IndexError, OverflowError, MemoryError and RecursionError have been seen.
        raise BundleError(f"{name} is not a NumPy vector of n-gram weights: {error}") from error
    return shape, dtype
