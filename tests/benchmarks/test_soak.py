"""soak: does it see what it looks for? Each promise broken on purpose, then the whole of it for a moment on a tiny bundle."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from benchmarks import soak
from benchmarks.soak_bundles import broken_bundles, point, read_bundle_id, second_bundle
from benchmarks.soak_calls import Callers
from benchmarks.soak_check import Known
from benchmarks.soak_mix import COMPARE, SCORE, STREAM, Mix, Planned, deadline_class, pool
from benchmarks.soak_sidecar import unexpected_records
from benchmarks.soak_tally import UNANSWERED
from benchmarks.soak_verdict import MAX_FD_GROWTH, Sample, broken_promises, growth, per_minute
from pars.v1 import ranker_pb2
from sidecar.bundle import open_bundle
from sidecar.calibration import Calibrator
from sidecar.errors import StartError
from sidecar.ranker import Ranker

ENCODER, NGRAM = ranker_pb2.TIER_ENCODER, ranker_pb2.TIER_NGRAM

SCORES = {ENCODER: (0.5, -1.0, 2.0), NGRAM: (0.25, 0.0, 1.0)}
"""Of three prompts."""


# --- bundles


@pytest.fixture
def bundles(tiny_bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    return tiny_bundle, second_bundle(tiny_bundle, tmp_path / "second")


def test_the_second_bundle_is_valid_and_says_other_tokens(bundles: tuple[Path, Path]) -> None:
    first, second = map(open_bundle, bundles)
    assert first.bundle_id != second.bundle_id == read_bundle_id(bundles[1])
    tokens = list(first.manifest.encoder_calibration.expected_tokens)
    assert list(second.manifest.encoder_calibration.expected_tokens) == [2 * each for each in tokens]
    Ranker.load(bundles[1], "cpu", 1)


def test_no_broken_bundle_can_serve_and_the_original_stays_whole(tiny_bundle: Path, tmp_path: Path) -> None:
    broken = broken_bundles(tiny_bundle, tmp_path)
    assert len(broken) == 5
    for folder in broken.values():
        with pytest.raises(StartError):
            Ranker.load(folder, "cpu", 1)
    Ranker.load(tiny_bundle, "cpu", 1)


def test_a_link_moves_from_one_bundle_to_another(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    link = tmp_path / "link"
    for bundle in (*bundles, tmp_path / "nothing"):
        point(link, bundle)
        assert link.resolve() == bundle.resolve()


# --- which calls


def test_the_mix_is_the_same_for_a_seed_and_has_everything() -> None:
    prompts = pool(0, 32)

    def calls(seed: int) -> list[Planned]:
        mix = Mix(prompts, seed)
        return [mix.next() for _ in range(1500)]

    mixed = calls(1)
    assert mixed == calls(1) != calls(2)
    assert {each.what for each in mixed} == {
        *("score", "score, encoder", "score, n-gram", "score, 256 prompts", "compare", "stream"),
        *("get bundle", "health", "watch", "wrong"),
    }
    scored = [each for each in mixed if each.prompts]
    names = {"hopeless", "tight", "generous", "none"}
    assert {deadline_class(each) for each in scored} == names | {f"{name}, encoder only" for name in names}
    assert {len(each.prompts) for each in scored if each.what == "score"} >= {1, 2, 32}
    assert {code for each in mixed if each.what == "wrong" for code in each.allowed} >= {
        "INVALID_ARGUMENT",
        "RESOURCE_EXHAUSTED",
    }
    assert any(each.leaves for each in mixed)
    assert all("CANCELLED" in each.allowed for each in mixed if each.cancel_after_s is not None)


# --- which answers


@pytest.fixture
def known(bundles: tuple[Path, Path]) -> Known:
    known = Known(bundles)
    known.learn(SCORES)
    return known


def response(bundle: Path, *positions: int, tier: "ranker_pb2.Tier" = ENCODER) -> ranker_pb2.ScoreResponse:
    """What a sidecar with this bundle would answer for these prompts."""
    manifest = open_bundle(bundle).manifest
    calibrator = Calibrator(manifest.encoder_calibration if tier == ENCODER else manifest.ngram.calibration)
    scores = [SCORES[tier][position] for position in positions]
    tokens = calibrator.apply(soak_array(scores))[1].tolist()
    return ranker_pb2.ScoreResponse(
        bundle_id=manifest.bundle_id,
        scores=[
            ranker_pb2.PromptScore(score=score, expected_tokens=expected, tier=tier)
            for score, expected in zip(scores, tokens, strict=True)
        ],
    )


def soak_array(scores: list[float]) -> Any:
    import numpy as np

    return np.array(scores, dtype=np.float32)


def planned(*positions: int, tier: int = 0, method: str = SCORE) -> Planned:
    return Planned("score", method, prompts=positions, tier=tier)


def test_right_answers_have_no_fault(known: Known, bundles: tuple[Path, Path]) -> None:
    for bundle in bundles:
        for tier in (ENCODER, NGRAM):
            assert known.fault(planned(2, 0), response(bundle, 2, 0, tier=tier).SerializeToString()) is None


def swapped_scores(answer: ranker_pb2.ScoreResponse) -> None:
    first, second = answer.scores
    first.score, second.score = second.score, first.score


def other_bundle(answer: ranker_pb2.ScoreResponse) -> None:
    answer.bundle_id = "0" * 16


def one_missing(answer: ranker_pb2.ScoreResponse) -> None:
    del answer.scores[1]


def tiers_mixed(answer: ranker_pb2.ScoreResponse) -> None:
    answer.scores[1].tier = NGRAM


def all_by_ngram(answer: ranker_pb2.ScoreResponse) -> None:
    for each in answer.scores:
        each.tier = NGRAM


def not_a_number(answer: ranker_pb2.ScoreResponse) -> None:
    answer.scores[0].score = float("nan")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (swapped_scores, "is off by 3"),
        (other_bundle, "bundle 0000000000000000"),
        (one_missing, "1 scores for 2 prompts"),
        (tiers_mixed, "tiers are mixed"),
        (all_by_ngram, "tier 2 answers where 1"),
        (not_a_number, "is off by nan"),
    ],
)
def test_every_wrong_answer_is_noticed(
    known: Known, bundles: tuple[Path, Path], spoil: Callable[[ranker_pb2.ScoreResponse], None], fault: str
) -> None:
    answer = response(bundles[0], 1, 2)
    spoil(answer)
    found = known.fault(planned(1, 2, tier=ENCODER), answer.SerializeToString())
    assert found is not None
    assert fault in found


def test_an_answer_that_mixes_two_bundles_is_noticed(known: Known, bundles: tuple[Path, Path]) -> None:
    answer = response(bundles[0], 2)
    answer.bundle_id = read_bundle_id(bundles[1])
    assert "expected tokens are not those" in (known.fault(planned(2), answer.SerializeToString()) or "")


def test_a_comparison_must_agree_with_its_scores(known: Known, bundles: tuple[Path, Path]) -> None:
    a, b = response(bundles[0], 2, 1).scores
    comparison = ranker_pb2.Comparison(longer=ranker_pb2.LONGER_A, score_a=a, score_b=b)
    answer = ranker_pb2.CompareResponse(comparisons=[comparison], bundle_id=read_bundle_id(bundles[0]))
    call = planned(2, 1, method=COMPARE)
    assert known.fault(call, answer.SerializeToString()) is None
    answer.comparisons[0].longer = ranker_pb2.LONGER_B
    assert "contradicts" in (known.fault(call, answer.SerializeToString()) or "")


# --- callers, against servers that break their promises

Answer = Callable[[Any, Any], Awaitable[Any]]
AskCallers = Callable[..., Awaitable[dict[str, Any]]]


@pytest_asyncio.fixture
async def ask_callers(known: Known) -> AsyncIterator[AskCallers]:
    """Makes one planned call to a server that does whatever the test says; returns the tally."""
    servers: list[Any] = []

    async def ask(
        call: Planned,
        *,
        score: Answer | None = None,
        stream: Answer | None = None,
        stopping: bool = False,
        slack_s: float = 0.2,
    ) -> dict[str, Any]:
        handlers: dict[str, Any] = {}
        if score:
            handlers["Score"] = grpc.unary_unary_rpc_method_handler(score)
        if stream:
            handlers["ScoreStream"] = grpc.stream_stream_rpc_method_handler(stream)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pars.v1.RankerService", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        callers = Callers(f"127.0.0.1:{port}", ("a", "b", "c"), known, seed=0, calls_per_s=1.0, slack_s=slack_s)
        if stopping:
            callers.stopping()
        await callers.make(call)
        callers.end()
        await callers.run()
        return callers.tally.to_json()

    yield ask
    for server in servers:
        await server.stop(None)


def one_item(timeout_s: float) -> Planned:
    item = Planned("stream item", STREAM, ranker_pb2.ScoreStreamRequest(id=0).SerializeToString(), (0,), timeout_s=timeout_s)
    return Planned("stream", STREAM, items=(item,))


async def never(_request: Any, context: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def read_and_end(requests: Any, context: Any) -> None:
    async for _ in requests:
        pass


async def fail(_request: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.INTERNAL, "broken")


async def unavailable(_request: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "going")


@pytest.mark.parametrize("server", [never, read_and_end])
async def test_an_item_nobody_answers_is_unanswered(ask_callers: AskCallers, server: Answer) -> None:
    tally = await ask_callers(one_item(timeout_s=0.1), stream=server)
    assert tally["calls"]["stream item"] == {UNANSWERED: 1}
    assert tally["unanswered"] >= 1


async def test_a_late_item_is_late(ask_callers: AskCallers, bundles: tuple[Path, Path]) -> None:
    async def late(requests: Any, context: Any) -> None:
        await context.read()
        await asyncio.sleep(0.15)
        await context.write(ranker_pb2.ScoreStreamResponse(response=response(bundles[0], 0)).SerializeToString())

    tally = await ask_callers(one_item(timeout_s=0.05), stream=late, slack_s=5.0)
    assert tally["calls"]["stream item"] == {"OK": 1}
    assert tally["by_deadline"]["tight"] == {"OK": 1, "late": 1}
    assert 0.05 < tally["worst_late_s"] < 5
    assert (tally["wrong"], tally["unanswered"]) == (0, 0)


async def test_a_status_nobody_deserves_is_wrong(ask_callers: AskCallers) -> None:
    tally = await ask_callers(planned(0), score=fail)
    assert (tally["calls"], tally["wrong"]) == ({"score": {"INTERNAL": 1}}, 1)
    assert tally["faults"] == ["score: INTERNAL: broken"]


@pytest.mark.parametrize(("stopping", "wrong"), [(False, 1), (True, 0)])
async def test_unavailable_is_right_only_while_stopping(ask_callers: AskCallers, stopping: bool, wrong: int) -> None:
    tally = await ask_callers(planned(0), score=unavailable, stopping=stopping)
    assert (tally["calls"], tally["wrong"]) == ({"score": {"UNAVAILABLE": 1}}, wrong)


async def test_a_caller_that_leaves_is_answered_by_leaving(ask_callers: AskCallers) -> None:
    for leaves in (False, True):
        call = Planned("score", SCORE, prompts=(0,), cancel_after_s=0.05, leaves=leaves, allowed=frozenset({"CANCELLED"}))
        tally = await ask_callers(call, score=never)
        assert (tally["calls"], tally["wrong"], tally["unanswered"]) == ({"score": {"CANCELLED": 1}}, 0, 0)


# --- the verdict


def samples(minutes: int, rss_mib: Callable[[float], float], fds: Callable[[float], int] = lambda minute: 20) -> list[Sample]:
    return [Sample(minute * 60.0, rss_mib(minute), fds(minute), 17) for minute in range(minutes + 1)]


def test_growth_is_from_after_the_warm_up_to_the_end() -> None:
    grown = growth(samples(30, lambda minute: 100.0 if minute < 5 else 200.0 + minute), seconds=1800)
    assert grown is not None
    assert grown["rss_mib"] == [206.0, 229.0]  # minutes 5 to 7, and 28 to 30
    assert grown["rss_ratio"] == pytest.approx(229 / 206)
    assert grown["rss_mib_highest"] == 230.0
    assert growth([], seconds=1800) is None
    assert per_minute([Sample(1.0, 100.0, 5, 3), Sample(59.0, 200.0, 7, 2), Sample(61.0, 1.0, 1, 1)]) == [
        [0, 150.0, 7, 3],
        [1, 1.0, 1, 1],
    ]


def kept_promises() -> dict[str, Any]:
    return {
        "over": "tcp",
        "callers": {"calls": {"score": {"OK": 1}}, "unanswered": 0, "wrong": 0},
        "growth": growth(samples(30, lambda minute: 500.0), seconds=1800),
        "reload_faults": [],
        "unexpected_log_records": 0,
        "exit_code": 0,
    }


def test_promises_that_were_kept() -> None:
    assert broken_promises(kept_promises(), minutes=30) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"callers": {"calls": {"score": {"OK": 1}}, "unanswered": 2, "wrong": 0}}, "2 calls were not answered"),
        ({"callers": {"calls": {"score": {"OK": 1}}, "unanswered": 0, "wrong": 3}}, "3 calls ended wrongly"),
        ({"callers": {"calls": {}, "unanswered": 0, "wrong": 0}}, "no calls were made"),
        ({"reload_faults": ["x"]}, "1 reloads went wrong"),
        ({"unexpected_log_records": 1}, "1 unexpected records in the log"),
        ({"exit_code": -9}, "exit code -9 after SIGTERM"),
        ({"exit_code": None}, "exit code None after SIGTERM"),
        ({"growth": None}, "no samples"),
        ({"growth": growth(samples(30, lambda minute: 100 + minute), 1800)}, "memory grew by a factor of 1.217"),
        (
            {"growth": growth(samples(30, lambda minute: 1.0, lambda minute: int(minute)), 1800)},
            "file descriptors grew from 7 to 30",
        ),
    ],
)
def test_every_broken_promise_is_named_with_its_figure(change: dict[str, Any], fault: str) -> None:
    (found,) = broken_promises(kept_promises() | change, minutes=30)
    assert found.startswith("tcp: ")
    assert fault in found
    assert MAX_FD_GROWTH < 30 - 7


def test_a_short_run_does_not_judge_growth() -> None:
    change = {"growth": growth(samples(30, lambda minute: 100 + minute), 1800)}
    assert broken_promises(kept_promises() | change, minutes=5) == []


def test_what_in_a_log_tells_of_a_bug() -> None:
    time = "2026-01-01 00:00:00,000"
    fine = [
        f"{time} INFO sidecar: x",
        f"{time} WARNING sidecar: y",
        f"{time} ERROR sidecar.reload: reload refused, bundle=a goes on",
    ]
    assert unexpected_records(fine) == []
    traceback = [f"{time} INFO grpc: x", "Traceback (most recent call last):", "  File", "ValueError: y"]
    assert unexpected_records([*fine, *traceback, f"{time} ERROR sidecar: z", *fine]) == [
        f"{time} INFO grpc: x … ValueError: y",
        f"{time} ERROR sidecar: z",
    ]
    assert unexpected_records(["Segmentation fault"]) == ["Segmentation fault"]


# --- the whole of it


def test_it_soaks_for_a_moment(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "soak.json"
    code = soak.main(["--bundle", str(tiny_bundle), "--out", str(out), "--provider", "cpu", "--minutes", "0.2"])
    shown = capsys.readouterr().out
    report = json.loads(out.read_text(encoding="utf-8"))
    assert code == bool(report["broken_promises"]), shown
    assert {sidecar["over"] for sidecar in report["sidecars"]} == {"tcp", "unix"}
    assert report["killed_callers"] >= 1
    reloads = [outcome for sidecar in report["sidecars"] for outcome in sidecar["reloads"]]
    assert {"swapped", "refused"} <= set(reloads)
    for sidecar in report["sidecars"]:
        assert sidecar["exit_code"] == 0, shown
        assert sidecar["reload_faults"] == [], shown
        assert sidecar["callers"]["unanswered"] == 0, shown
        assert sidecar["callers"]["calls"]["score"]["OK"] > 0, shown
        # A reload may fill a window of so short a run.
        assert sidecar["growth"] is None or sidecar["growth"]["rss_mib"][0] > 0
    assert report["stamp"]["command"].endswith("--provider cpu --minutes 0.2")
