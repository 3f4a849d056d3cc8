"""bf16 bundles: what runs them, where, and what is said when that is not there. What a graph may be: test_sidecar_scoring."""

import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from sidecar_process import WAIT_S, Callers, StartSidecar
from sidecar_tiny import expected_score, read_manifest, write_manifest

from pars.v1 import ranker_pb2, ranker_pb2_grpc
from sidecar import openvino_session
from sidecar.bundle import open_bundle
from sidecar.encoder import open_encoder
from sidecar.errors import ProviderError
from sidecar.niceness import NICENESS
from sidecar.openvino_session import OPENVINO, OpenVinoScorer, round_up
from sidecar.ranker import Ranker
from sidecar.scorer import TokenizedPrompt
from sidecar.session import CPU
from sidecar.tokenization import PromptTokenizer

PROMPTS = ("long", "very very long", "short", "", "write short", "🦜")


@pytest.fixture
def bf16_bundle(own_bundle: Path) -> Path:
    """Every score of its graph is exact in 8 bits."""
    write_manifest(own_bundle, read_manifest(own_bundle) | {"precision": "PRECISION_BF16"})
    return own_bundle


def test_the_precision_says_which_runtime(bf16_bundle: Path, tiny_bundle: Path) -> None:
    for provider in ("auto", "cpu"):
        assert open_encoder(open_bundle(bf16_bundle), provider).provider == OPENVINO
        assert open_encoder(open_bundle(tiny_bundle), provider).provider == CPU


def test_there_is_no_bf16_on_a_gpu(bf16_bundle: Path) -> None:
    with pytest.raises(ProviderError, match="provider cuda was asked for, but a bf16 bundle is for CPUs"):
        open_encoder(open_bundle(bf16_bundle), "cuda")


def test_without_openvino_the_extra_is_named(bf16_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderError, match=r"runs on OpenVINO, which is not installed: install pars-sidecar\[openvino\]"):
        Ranker.load(bf16_bundle, "auto", 1)


def test_a_cpu_without_instructions_for_it_is_said_once(
    bf16_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(openvino_session, "_cpu_words", lambda: {"flags", "avx2"})
    OpenVinoScorer(open_bundle(bf16_bundle))
    assert ["no instructions for bf16" in record.getMessage() for record in caplog.records] == [True]
    caplog.clear()
    monkeypatch.setattr(openvino_session, "_cpu_words", lambda: {"flags", "avx512_bf16"})
    OpenVinoScorer(open_bundle(bf16_bundle))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_words_of_a_cpu(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu amx_bf16 amx_tile\n")
    assert openvino_session._cpu_words(tmp_path / "cpuinfo") == {"flags", ":", "fpu", "amx_bf16", "amx_tile"}
    assert openvino_session._cpu_words(tmp_path / "gone") == set()


def test_many_threads_share_one_scorer(bf16_bundle: Path) -> None:
    bundle = open_bundle(bf16_bundle)
    scorer, tokenizer = OpenVinoScorer(bundle, workers=2), PromptTokenizer.for_bundle(bundle)

    def alone(turn: int) -> bool:
        prompt = PROMPTS[turn % len(PROMPTS)]
        return bool(scorer.score(tokenizer.encode([prompt])) == [expected_score(prompt)])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(alone, range(400)))


def threads_of_this_process() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def test_the_threads_of_the_model_step_back(bf16_bundle: Path) -> None:
    """They do the work, so it is they who must let the event loop go first."""
    bundle = open_bundle(bf16_bundle)
    before = threads_of_this_process()
    scorer = OpenVinoScorer(bundle, workers=2)
    scorer.score(PromptTokenizer.for_bundle(bundle).encode(["long"]))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    niceness = [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads_of_this_process() - before]
    assert niceness
    assert set(niceness) == {min(own + NICENESS, 19)}


def test_a_life_with_swaps(start_sidecar: StartSidecar, bf16_bundle: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """1. starts and says what it runs on 2. scores 3. changes to an fp32 bundle and back, under load 4. stops with code 0."""
    link = tmp_path / "link"
    link.symlink_to(bf16_bundle)
    sidecar = start_sidecar(link, "--address", "127.0.0.1:0", "--workers", "2")
    with grpc.insecure_channel(sidecar.serving(OPENVINO)) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        reply = stub.Score(ranker_pb2.ScoreRequest(prompts=PROMPTS, tier=ranker_pb2.TIER_ENCODER), timeout=WAIT_S)
        assert [score.score for score in reply.scores] == [expected_score(prompt) for prompt in PROMPTS]
        with Callers(stub) as callers:
            for bundle, provider in ((tiny_bundle, CPU), (bf16_bundle, OPENVINO)):
                link.unlink()
                link.symlink_to(bundle)
                sidecar.signal(signal.SIGHUP)
                callers.wait_for(open_bundle(bundle).bundle_id)
                served = stub.GetBundle(ranker_pb2.GetBundleRequest(), timeout=WAIT_S)
                assert served.execution_provider == provider
        assert callers.failed == []
    sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == 0


def test_shapes_are_few_and_never_too_small() -> None:
    assert [round_up(count) for count in (1, 7, 8, 9, 11, 12, 17, 33, 127, 128, 129)] == [
        1,
        7,
        8,
        10,
        12,
        12,
        20,
        40,
        128,
        128,
        160,
    ]
    assert all(count <= round_up(count) <= count * 5 / 4 for count in range(1, 1000))
    assert len({round_up(count) for count in range(1, 129)}) == 24


def test_rounding_stops_at_what_the_model_can_read(bf16_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(bf16_bundle)
    bundle.manifest.input.max_tokens = 9
    scorer, shapes = OpenVinoScorer(bundle), []
    arrays = scorer._io.arrays
    monkeypatch.setattr(scorer._io, "arrays", lambda batch, shape: shapes.append(shape) or arrays(batch, shape))
    longest = TokenizedPrompt(np.full(9, 5, dtype=np.int64), truncated=True)
    assert scorer.score([longest] * 9).tolist() == [18.0] * 9
    assert shapes == [(10, 9)]
