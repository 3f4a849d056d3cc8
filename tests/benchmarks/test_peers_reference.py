"""The reference peer on a tiny checkpoint, in this environment: its routes in this process, then a real one in a benchmark's stage."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from transformers import AutoTokenizer

from benchmarks.bench_overhead.cases import PeerCase, ServedCase
from benchmarks.bench_overhead.stage import Settings, Stage
from benchmarks.peers.classifier import Classifier
from benchmarks.peers.infinity import write_pair_checkpoint
from benchmarks.peers.reference import make_app
from benchmarks.peers.registry import PEERS, Peer, PeerError
from benchmarks.peers.served import ServedPeer
from benchmarks.workload import made_up
from trainer.checkpoint import read_checkpoint

# Of all lengths, the last one cut.
PROMPTS = [*made_up(6, seed=1).prompts, "write a long story about the sea " * 40]
SETTINGS = Settings(provider="cpu", seconds=0.3, rounds=1, caller_processes=1, sidecar_flags=(), smoke=True)


@pytest.fixture
async def client(tiny_checkpoint: Path) -> AsyncIterator[httpx.AsyncClient]:
    max_tokens = read_checkpoint(tiny_checkpoint).card.max_tokens
    app = make_app(Classifier(tiny_checkpoint, max_tokens))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://peer") as made:
        yield made


async def test_the_routes_score_as_the_trainer_does(client: httpx.AsyncClient, tiny_checkpoint: Path) -> None:
    ranker = read_checkpoint(tiny_checkpoint).ranker
    expected = list(ranker.score(ranker.tokenize(PROMPTS)))
    together = await client.post("/score_batch", json={"prompts": PROMPTS})
    assert together.json()["scores"] == pytest.approx(expected, abs=1e-5)
    for prompt, score in zip(PROMPTS, expected, strict=True):
        assert (await client.post("/score", json={"prompt": prompt})).json() == {"score": pytest.approx(score, abs=1e-5)}


async def test_what_is_no_request_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/score", json={"prompts": ["What?"]})).status_code == 422
    assert (await client.post("/score_batch", json={"prompts": "What?"})).status_code == 422


def test_the_copy_for_infinity_makes_one_text_of_a_pair(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_pair_checkpoint(tiny_checkpoint, tmp_path, max_tokens=16)
    single, pair = AutoTokenizer.from_pretrained(tiny_checkpoint), AutoTokenizer.from_pretrained(tmp_path)
    assert pair.model_max_length == 16
    for prompt in PROMPTS:
        expected = single(prompt, truncation=True, max_length=16)
        assert dict(pair([["", prompt]], truncation="longest_first")) == {name: [ids] for name, ids in expected.items()}


def test_a_stage_measures_a_peer_beside_the_sidecar(
    tiny_bundle: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. start, and compare scores 2. measure ours and the peer 3. measure the peer again, which was paused
    4. refuse it when its scores are not the bundle's.
    """
    monkeypatch.setattr(Peer, "python", Path(sys.executable))
    reference = PEERS["reference"]
    with Stage.open(tiny_bundle, made_up(64, seed=0), SETTINGS, peers=[reference], checkpoint=tiny_checkpoint) as stage:
        assert stage.peer_differences["reference"] < 1e-5
        assert stage.peers["reference"].versions.keys() == set(reference.packages)
        ours = stage.measure(ServedCase("ours", "ours", "tcp", "asyncio", 8), SETTINGS)
        alone = stage.measure(PeerCase("one", "one", "reference", 1), SETTINGS)
        batches = stage.measure(PeerCase("many", "many", "reference", 4, prompts_per_call=8), SETTINGS)
        stage.bare.about["sample"]["scores"][-1] += 0.01
        with pytest.raises(PeerError, match=r"reference and the bundle differ by 0\.01"):
            stage._add(stage.peers["reference"])
    for measured in (ours, alone, batches):
        assert not measured.failed, measured.failures
        assert measured.prompts_per_s > 0
        assert measured.scorer_cpu_s_per_1000_prompts
        assert measured.server_rss_mib is not None
        assert measured.server_pss_mib is not None
        assert measured.server_rss_mib >= measured.server_pss_mib > 10


def test_a_peer_without_environment_says_what_to_do(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Peer, "python", tmp_path / "python")
    with pytest.raises(PeerError, match=r"mosec has no environment.*make peers-env"):
        ServedPeer(PEERS["mosec"], tiny_checkpoint)
