"""Fuzz targets around the bundle folder: whatever lies in it, opening it gives a Bundle or a BundleError, quickly, and nothing else.

Hashes would stop every mutation at the first check, so three targets sign the bundle again after the damage and reach the code
behind it; `damage` does not and holds that nothing gets past the hashes.
"""

import atexit
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from pars import ngram
from sidecar.bundle import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MODEL_FILE,
    NGRAM_FILE,
    TOKENIZER_FILE,
    Bundle,
    bundle_id_of,
    open_bundle,
)
from sidecar.errors import BundleError, ModelError
from sidecar.tokenization import PromptTokenizer

BUCKETS = 64
MAX_TOKENS = 16
PROMPTS = ("", "write a very long one", "x" * 100, "🦜 \0 שלום")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "write", "long", "very", "##e", "a", "x")


def manifest(content: bytes) -> None:
    """A JSON object is merged into a valid manifest, which is then signed again; anything else becomes the whole file."""
    patch = _json_object(content)
    if patch is None:
        _open({MANIFEST_FILE: content})
        return
    whole = _merged(json.loads(_valid()[MANIFEST_FILE]), patch)
    try:
        whole["bundleId"] = bundle_id_of(whole)
        text = json.dumps(whole)
    except RecursionError:
        return
    _open({MANIFEST_FILE: text.encode()})


def ngram_file(content: bytes) -> None:
    """ngram.npy, whole, in a bundle that says it is right."""
    _open({NGRAM_FILE: content}, sign=True)


def ngram_header(content: bytes) -> None:
    """The header of ngram.npy, between a right preamble and right weights."""
    padded = content[:8_000] + b"\n"
    weights = _valid()[NGRAM_FILE][-4 * ngram.weight_count(BUCKETS) :]
    _open({NGRAM_FILE: b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + weights}, sign=True)


def tokenizer(content: bytes) -> None:
    """A JSON object is merged into a valid tokenizer.json; anything else becomes the whole file. The manifest says it is right."""
    patch = _json_object(content)
    if patch is not None:
        try:
            content = json.dumps(_merged(json.loads(_valid()[TOKENIZER_FILE]), patch)).encode()
        except RecursionError:
            return
    _open({TOKENIZER_FILE: content}, sign=True)


def damage(content: bytes) -> None:
    """Four bytes each: which file, what to do, where. The manifest is not told, so nothing but the valid bundle may open."""
    files = dict(_valid())
    names = sorted(files)
    for at in range(0, len(content) - 3, 4):
        name = names[content[at] % len(names)]
        old = files.get(name)
        if old is None:
            continue
        place = int.from_bytes(content[at + 2 : at + 4], "little") % (len(old) + 1)
        match content[at + 1] % 4:
            case 0:
                files[name] = old[:place]
            case 1:
                files[name] = old[:place] + bytes([content[at + 1]]) + old[place + 1 :]
            case 2:
                files[name] = old + old[:place]
            case 3:
                del files[name]
    opened = _open(files, missing=set(names) - set(files))
    # White space in the manifest's JSON is the one difference that no hash covers.
    same = all(files.get(name) == _valid()[name] for name in names if name != MANIFEST_FILE)
    assert opened is None or same, "a damaged bundle was opened"


TARGETS: dict[str, Callable[[bytes], None]] = {
    "manifest": manifest,
    "ngram": ngram_file,
    "ngram_header": ngram_header,
    "tokenizer": tokenizer,
    "damage": damage,
}


def _open(changed: dict[str, bytes], *, sign: bool = False, missing: Collection[str] = ()) -> Bundle | None:
    """Open a valid bundle with these files changed, and use what has been opened as a start would. None when it is refused."""
    folder = _folder()
    files = {name: content for name, content in (_valid() | changed).items() if name not in missing}
    if sign:
        files[MANIFEST_FILE] = _signed(json.loads(files[MANIFEST_FILE]), files)
    for name in missing:
        (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        if _on_disk.get(name) != content or not (folder / name).exists():
            (folder / name).write_bytes(content)
            _on_disk[name] = content
    try:
        bundle = open_bundle(folder)
        read = PromptTokenizer.for_bundle(bundle)
        for prompt in read.encode(PROMPTS):
            assert len(prompt.token_ids) <= bundle.manifest.input.max_tokens
            if bundle.ngram_weights is not None:
                ngram.score(prompt.token_ids, bundle.ngram_weights)
    except BundleError as error:
        str(error).encode()  # a log writes it
        return None
    except ModelError:
        pass  # a tokenizer that fails on some prompts alone: those calls are answered with INTERNAL
    return bundle


_on_disk: dict[str, bytes] = {}


@cache
def _folder() -> Path:
    """One folder, changed again and again: a run opens hundreds of thousands of bundles. A fuzzer ends without tidying up."""
    folder = Path(tempfile.mkdtemp(prefix="pars-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _valid() -> dict[str, bytes]:
    """The files of a valid bundle. Opening never looks into the graph, so that file is a stand-in."""
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    words.enable_padding(length=32, pad_id=0)
    weights = np.linspace(-1, 1, ngram.weight_count(BUCKETS), dtype=np.float32)
    folder = _folder()
    np.save(folder / NGRAM_FILE, weights)
    calibration = {
        "scores": [-2.0, 0.0, 4.0],
        "quantiles": [0.0, 0.5, 1.0],
        "expectedTokens": [10.0, 100.0, 500.0],
        "expectedTokensP90": [20.0, 300.0, 900.0],
        "promptCount": 3,
    }
    described: dict[str, Any] = {
        "formatVersion": FORMAT_VERSION,
        "precision": "PRECISION_FP32",
        "input": {"maxTokens": MAX_TOKENS, "maxChars": 50, "inputNames": ["input_ids"], "outputName": "logits"},
        "encoderCalibration": calibration,
        "ngram": {"path": NGRAM_FILE, "bucketCount": BUCKETS, "calibration": calibration},
        "goldenPrompts": [{"prompt": PROMPTS[1], "score": 1.0, "ngramScore": 1.0}],
        "goldenTolerance": 1.0,
    }
    files = {
        MODEL_FILE: b"graph",
        TOKENIZER_FILE: words.to_str().encode(),
        NGRAM_FILE: (folder / NGRAM_FILE).read_bytes(),
    }
    return {MANIFEST_FILE: _signed(described, files), **files}


def _signed(described: dict[str, Any], files: dict[str, bytes]) -> bytes:
    """The manifest's JSON with the sizes and hashes that these files have, and the id that follows from them."""
    entries = [
        {"path": name, "sha256": hashlib.sha256(content).hexdigest(), "sizeBytes": str(len(content))}
        for name, content in sorted(files.items())
        if name != MANIFEST_FILE
    ]
    whole = {**described, "files": entries}
    return json.dumps({**whole, "bundleId": bundle_id_of(whole)}).encode()


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _merged(base: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396): null removes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
