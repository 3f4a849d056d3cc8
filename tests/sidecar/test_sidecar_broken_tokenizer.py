"""A tokenizer that fails on some prompts. Its worst failure, a panic, is no Exception in Python, so nothing that catches those sees it."""

import json
import logging
from pathlib import Path

import grpc
import pytest
from sidecar_rig import WAIT_S
from sidecar_served import Served, status_of
from sidecar_tiny import rehash

from pars.v1 import ranker_pb2
from sidecar.bundle import TOKENIZER_FILE
from sidecar.errors import BundleError, ModelError
from sidecar.ranker import Ranker
from sidecar.tokenization import PromptTokenizer

SPLITS_FOR_EVER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Split", "pattern": {"Regex": "(s+s+)+y"}, "behavior": "Isolated", "invert": False},
    ],
}
"""Words, and then a pattern that its engine gives up on after many an s: it panics."""

PANICS = "s" * 100


def change(folder: Path, **parts: object) -> None:
    """Change top-level parts of the bundle's tokenizer and sign the bundle again."""
    path = folder / TOKENIZER_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))
    rehash(folder, TOKENIZER_FILE)


async def test_a_panic_is_answered_like_any_failure_and_the_next_call_is_served(
    own_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(own_bundle, pre_tokenizer=SPLITS_FOR_EVER)
    served = await Served.start(Ranker.load(own_bundle, "cpu", 1))
    try:
        with caplog.at_level(logging.DEBUG):
            code, message = await status_of(
                served.stub.Score(ranker_pb2.ScoreRequest(prompts=["long", PANICS]), timeout=WAIT_S)
            )
        assert code is grpc.StatusCode.INTERNAL
        assert "ssss" not in message + caplog.text
        reply = await served.stub.Score(ranker_pb2.ScoreRequest(prompts=["long"]), timeout=WAIT_S)
        assert len(reply.scores) == 1
    finally:
        await served.close()


def test_encode_says_that_it_failed_and_not_on_what(own_bundle: Path) -> None:
    change(own_bundle, pre_tokenizer=SPLITS_FOR_EVER)
    tokenizer = PromptTokenizer.from_file(own_bundle / TOKENIZER_FILE, max_tokens=16, max_chars=200)
    with pytest.raises(ModelError, match="the tokenizer failed on a call of 1 prompts with PanicException"):
        tokenizer.encode([PANICS])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "is not a tokenizer: "),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "cannot be used: the tokenizer failed"),
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}}, "cannot be used: the tokenizer failed"),
    ],
    ids=["panics when read", "panics on any text", "has no token for the unknown"],
)
def test_a_tokenizer_that_cannot_serve_stops_the_start(own_bundle: Path, parts: dict[str, object], message: str) -> None:
    change(own_bundle, **parts)
    with pytest.raises(BundleError, match=message):
        Ranker.load(own_bundle, "cpu", 1)


def test_a_tokenizer_that_adds_more_than_the_model_reads_stops_the_start(own_bundle: Path) -> None:
    many = {"[CLS]": {"id": "[CLS]", "ids": [2] * 20, "tokens": ["[CLS]"] * 20}}
    pieces = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    change(own_bundle, post_processor={"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": many})
    with pytest.raises(BundleError, match=r"makes \d+ tokens of a prompt although max_tokens is 16"):
        Ranker.load(own_bundle, "cpu", 1)
