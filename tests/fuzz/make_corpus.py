"""Write the seeds of the corpus: `python tests/fuzz/make_corpus.py`, with the paths of pytest. One small input for each branch
worth reaching and for each fault that was once there; a test holds that the files are those of this script.

What fuzzing finds beyond that is kept as `found-*`, which this script leaves alone.
"""

import json
from pathlib import Path
from typing import Any

from pars.v1 import ranker_pb2

CORPUS = Path(__file__).parent / "corpus"


def npy_header(shape: object, descr: object = "<f4") -> bytes:
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()


def npy_file(header: bytes, body: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + body


def patch(**values: Any) -> bytes:
    return json.dumps(values).encode()


def added_token(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": True, **flags}


def special(ids: list[int]) -> dict[str, Any]:
    return {"[CLS]": {"id": "[CLS]", "ids": ids, "tokens": ["[CLS]"] * len(ids)}}


def message(head: int, content: ranker_pb2.ScoreRequest | ranker_pb2.CompareRequest | ranker_pb2.GetBundleRequest) -> bytes:
    return bytes([head]) + content.SerializeToString()


def items(head: int, *contents: bytes) -> bytes:
    return bytes([head]) + b"".join(bytes([len(content)]) + content for content in contents)


def item(number: int, *prompts: str, timeout_ms: int = 0, tier: int = 0) -> bytes:
    score = ranker_pb2.ScoreRequest(prompts=prompts, tier=tier)
    return ranker_pb2.ScoreStreamRequest(id=number, request=score, timeout_ms=timeout_ms).SerializeToString()


def carrying(first: bytes, *more: bytes) -> bytes:
    """The first item with the others in the same message, from a client that takes several replies in one."""
    carrier = ranker_pb2.ScoreStreamRequest.FromString(first)
    carrier.takes_more = True
    carrier.more.extend(ranker_pb2.ScoreStreamRequest.FromString(each) for each in more)
    return carrier.SerializeToString()


def score(*prompts: str, tier: int = 0, ranker: str = "") -> ranker_pb2.ScoreRequest:
    return ranker_pb2.ScoreRequest(prompts=prompts, tier=tier, ranker=ranker)


SEEDS: dict[str, dict[str, bytes]] = {
    "manifest": {
        "valid": b"{}",
        "not-json": b"\xff\xfe{",
        "deep": b'{"input":' * 150 + b"1" + b"}" * 150,
        "deeper": b"[" * 2_000,
        "half-a-character-as-key": b'{"\\ud800": 0}',
        "half-a-character-as-value": b'{"licence": "\\ud800"}',
        "another-version": b'{"formatVersion": "\\ud800"}',
        "version-true": patch(formatVersion=True),
        "version-float": patch(formatVersion=1.0),
        "unknown-field": patch(somethingNew={"a": [1]}),
        "no-ngram": b'{"ngram": null}',
        "buckets-huge": patch(ngram={"bucketCount": 1 << 31}),
        "buckets-odd": patch(ngram={"bucketCount": 3}),
        "path-leaves": patch(ngram={"path": "../ngram.npy"}),
        "path-of-the-tokenizer": patch(ngram={"path": "tokenizer.json"}),
        "path-too-long": patch(files=[{"path": "a" * 300}]),
        "calibration-nan": b'{"encoderCalibration": {"scores": [NaN, 0, 1]}}',
        "calibration-infinite": b'{"encoderCalibration": {"scores": [-1e999, 0, 1e999]}}',
        "calibration-falls": patch(encoderCalibration={"quantiles": [0.5, 0.2, 0.1]}),
        "calibration-huge": patch(encoderCalibration={"scores": [-3e38, 0, 3e38], "expectedTokens": [0, 0, 3e38]}),
        "max-tokens-huge": patch(input={"maxTokens": 4_294_967_295, "maxChars": 4_294_967_295}),
        "max-tokens-least": patch(input={"maxTokens": 4}),
        "precision-infinite": b'{"precision": Infinity}',
        "golden-empty": patch(goldenPrompts=[]),
        "snake-case": patch(golden_tolerance=1.0),
    },
    "ngram": {
        "empty": b"",
        "magic-only": b"\x93NUMPY",
        "version-2": b"\x93NUMPY\x02\x00\x02\x00\x00\x00{}",
        "cut-short": npy_file(npy_header((66,)), b"\0" * 100),
        "not-finite": npy_file(npy_header((66,)), b"\xff" * 264),
        "archive": b"PK\x03\x04",
    },
    "ngram_header": {
        "valid": npy_header((66,)),
        "terabytes": npy_header((1 << 40,)),
        "beyond-64-bits": npy_header((10**30,)),
        "negative": npy_header((-1,)),
        "a-truth-value": npy_header((True,)),
        "no-dimensions": npy_header(()),
        "pickled": npy_header((66,), "|O"),
        "nothing-wide": npy_header((66,), "<V0"),
        "type-of-one": npy_header((66,), ("<f4",)),
        "other-end-first": npy_header((66,), ">f4"),
        "unhashable-key": b"{[]: 1}",
        "keys-of-two-kinds": b"{1: 2, 'a': 3}",
        "open-bracket": b"{'descr': (",
        "many-signs": b"-" * 1_900 + b"1",
        "long-of-python-2": b"{'descr': '<f4', 'fortran_order': False, 'shape': (66L,)}",
        "NUL": b"\0",
    },
    "tokenizer": {
        "valid": b"{}",
        "not-json": b"\xff",
        "no-unknown-token": patch(model={"unk_token": "zzz"}),
        "empty-vocabulary": patch(model={"vocab": {}}),
        "bytes-pairs": patch(model={"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "zz"}),
        "unigram-without-unknown": patch(model={"type": "Unigram", "unk_id": None, "vocab": [["a", 0.0]]}),
        "charsmap-short": patch(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "charsmap-out-of-bounds": patch(normalizer={"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8AAAAA"}),
        "regex-gives-up": patch(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated"}),
        "chunks-of-nothing": patch(pre_tokenizer={"type": "FixedLength", "length": 0}),
        "more-special-tokens-than-room": patch(post_processor={"special_tokens": special([2] * 20)}),
        "no-room-but-special-tokens": patch(post_processor={"special_tokens": special([2] * 15)}),
        "id-huge": patch(post_processor={"special_tokens": special([4_294_967_295])}),
        "added-token-empty": patch(added_tokens=[added_token("", 0)]),
        "added-token-huge": patch(added_tokens=[added_token("x", 4_294_967_295)]),
        "longer-and-longer": patch(normalizer={"type": "Replace", "pattern": {"String": "x"}, "content": "y" * 500}),
    },
    "damage": {
        "nothing": b"",
        "manifest-cut": b"\x00\x00\x40\x00",
        "model-longer": b"\x01\x02\x01\x00",
        "ngram-flipped": b"\x02\x01\x90\x00",
        "tokenizer-gone": b"\x03\x03\x00\x00",
        "manifest-gone": b"\x00\x03\x00\x00",
    },
    "request": {
        "score": message(0, score("write", "", "a\0b", "🦜 שלום")),
        "score-nothing": message(0, score()),
        "score-too-many": message(0, score(*["x"] * 9)),
        "score-unknown-tier": message(0, score("x", tier=77)),
        "score-ngram": message(0, score("x" * 900, tier=ranker_pb2.TIER_NGRAM)),
        "score-no-time": message(3, score("x")),
        "score-hardly-time": message(9, score("x", tier=ranker_pb2.TIER_ENCODER)),
        "score-for-ever": message(21, score("x")),
        "score-other-ranker": message(0, score("x", ranker="meta-llama/Llama-3.1-8B")),
        "score-bad-utf8": b"\0\x0a\x02\xff\xfe",
        "score-half-a-character": b"\0\x0a\x03\xed\xa0\x80",
        "score-cut-short": b"\0\x0a\x7fabc",
        "score-unknown-fields": b"\0\x0a\x01x\xf8\x07\x01\xfa\x07\x02ab",
        "score-deep-groups": b"\0" + b"\xa3\x06" * 150,
        "score-negative-tier": b"\0\x0a\x01x\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        "compare": message(1, ranker_pb2.CompareRequest(pairs=[ranker_pb2.PromptPair(prompt_a="a", prompt_b="bb")])),
        "compare-too-many": message(1, ranker_pb2.CompareRequest(pairs=[ranker_pb2.PromptPair()] * 5)),
        "get-bundle": message(2, ranker_pb2.GetBundleRequest()),
        "get-bundle-other": message(2, ranker_pb2.GetBundleRequest(ranker="none")),
    },
    "stream": {
        "empty": b"",
        "items": items(0, item(1, "abc"), item(2, "", "x"), item(3, "y", tier=ranker_pb2.TIER_NGRAM)),
        "same-id": items(0, *[item(7, "x")] * 9),
        "an-empty-item": items(0, b"", item(1, "x")),
        "wrong-items": items(0, item(1), item(2, *["x"] * 9), item(3, "x", tier=9)),
        "unreadable": items(0, item(1, "x"), b"\xff\xff", item(2, "y")),
        "no-time": items(1, item(1, "x"), item(2, "y", timeout_ms=5_000)),
        "item-timeouts": items(0, item(1, "x", timeout_ms=1), item(2, "y", timeout_ms=4_294_967_295)),
        "largest-id": items(0, item(2**64 - 1, "x")),
        "cut-short": b"\0\x20\x08\x01",
        "several-in-a-message": items(0, carrying(item(1, "x"), item(2, "y"), item(3)), item(4, "z")),
        "items-within-items": items(0, item(1, "x"), carrying(item(2, "x"), carrying(item(3, "x"), item(4, "x")))),
    },
}


def main() -> None:
    for target, seeds in SEEDS.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if not path.name.startswith("found-"):
                path.unlink()
        for name, content in seeds.items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
