"""Who the peers are: names, environments, pins, and how each is asked and read."""

import json
import re

import pytest

from benchmarks.peers.registry import PEERS, PeerError, chosen
from benchmarks.stamp import REPOSITORY

ANSWERS = {
    "reference": {"scores": [1.5, -2.0]},
    "cross_encoder": {"scores": [1.5, -2.0]},
    "mosec": {"scores": [1.5, -2.0]},
    "ray_serve": {"scores": [1.5, -2.0]},
    # As infinity sorts them: the best first.
    "infinity": {"results": [{"relevance_score": 1.5, "index": 0}, {"relevance_score": -2.0, "index": 1}]},
}


def pins(environment: str) -> dict[str, str]:
    lines = (REPOSITORY / ".ci" / f"{environment}-requirements.txt").read_text(encoding="utf-8").splitlines()
    exact = [re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", line) for line in lines if not line.startswith("#")]
    return {match[1].lower(): match[2] for match in exact if match is not None} if all(exact) else {}


def test_peers_are_chosen_by_name() -> None:
    assert [peer.name for peer in chosen("all")] == list(PEERS)
    assert [peer.name for peer in chosen("mosec, reference,mosec")] == ["mosec", "reference"]
    with pytest.raises(PeerError, match="no peer is called 'triton'; there are reference, "):
        chosen("mosec,triton")
    with pytest.raises(PeerError, match="no peer is called ''"):
        chosen("")


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_a_module_with_a_pinned_environment(name: str) -> None:
    peer = PEERS[name]
    assert (REPOSITORY / "benchmarks" / "peers" / f"{name}.py").is_file()
    assert peer.python == REPOSITORY / f".venv-{peer.environment}" / "bin" / "python"
    pinned = pins(peer.environment)
    assert {package.lower() for package in peer.packages} <= pinned.keys()
    # The CUDA build of another version would bring gigabytes.
    assert f"torch=={pinned['torch']}" in (REPOSITORY / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", PEERS)
def test_prompts_are_sent_and_scores_read_in_their_order(name: str) -> None:
    route = PEERS[name].route(2)
    assert json.dumps(["What?", "Why?"])[1:-1] in json.dumps(route.body(["What?", "Why?"]))
    assert route.scores(ANSWERS[name]) == [1.5, -2.0]


def test_scores_that_come_back_sorted_find_their_prompts() -> None:
    answer = {
        "results": [
            {"relevance_score": 3.0, "index": 1},
            {"relevance_score": 1.0, "index": 2},
            {"relevance_score": 0.0, "index": 0},
        ]
    }
    assert PEERS["infinity"].many.scores(answer) == [0.0, 3.0, 1.0]


def test_one_prompt_takes_its_own_route_where_there_is_one() -> None:
    reference = PEERS["reference"]
    assert reference.route(1).path == "/score"
    assert reference.route(1).body(["What?"]) == {"prompt": "What?"}
    assert reference.route(1).scores({"score": 0.5}) == [0.5]
    assert reference.route(2).path == "/score_batch"
    assert PEERS["mosec"].route(1) is PEERS["mosec"].many
