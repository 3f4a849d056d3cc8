"""Who ranks in the benchmarks on a real vLLM: an oracle that knows the lengths, lengths dealt out anew, and the hook's settings."""

from pathlib import Path

import pytest

from benchmarks.bench_vllm.arms import ARMS, BASELINE, ORACLE, arm_named
from benchmarks.bench_vllm.latency import VARIANTS
from benchmarks.bench_vllm.oracle_ranker import quantiles_of, recorded, shuffled
from benchmarks.bench_vllm.rankers import Ranker, oracle, served_ranker
from benchmarks.replay import Replay, Request
from vllm_client import DEFAULT_WINDOW_MS, ClientConfig, HookSettings, InvalidPromptsError, RankerClient
from vllm_client.hook.link import PROBE
from vllm_client.hook.settings import ENV_PREFIX

DEADLINE_MS = 20_000.0


def test_quantiles_count_the_shorter_ones() -> None:
    assert quantiles_of([30, 10, 20, 20]) == [7 / 8, 1 / 8, 4 / 8, 4 / 8]


def test_dealing_out_anew_changes_whose_length_it_is_and_nothing_else() -> None:
    lengths = {f"prompt {n}": n for n in range(50)}
    dealt = shuffled(lengths, seed=1)
    assert list(dealt) == list(lengths)
    assert sorted(dealt.values()) == sorted(lengths.values())
    assert dealt != lengths


def test_the_oracle_serves_like_the_sidecar(tmp_path: Path) -> None:
    """1. it knows the workload 2. a hook's probe is answered 3. any other prompt is refused."""
    long = "very long " * 150
    replay = Replay((Request("short", 5), Request("middling", 50), Request(long, 500)), "test")
    replay.write(tmp_path / "w.jsonl")
    address = f"unix:{tmp_path}/oracle.sock"
    with (
        oracle(address, "--workload", str(tmp_path / "w.jsonl")),
        RankerClient(ClientConfig(address=address, deadline_ms=DEADLINE_MS)) as client,
    ):
        scores = client.score(["short", "middling", long]).scores
        assert [score.quantile for score in scores] == pytest.approx([1 / 6, 3 / 6, 5 / 6])
        assert [score.expected_tokens for score in scores] == [5, 50, 500]
        assert client.score([PROBE]).scores[0].quantile == 0.5
        with pytest.raises(InvalidPromptsError):
            client.score(["short", "unheard of"])
        assert client.get_bundle().manifest.bundle_id == "oracle"


@pytest.mark.parametrize(
    ("ranker", "first_to_last"),
    [("prompt_length", ["short", "middling", "the longest"]), ("oracle", ["the longest", "middling", "short"])],
)
def test_who_ranks_by_what(tmp_path: Path, ranker: Ranker, first_to_last: list[str]) -> None:
    replay = Replay((Request("middling", 50), Request("short", 500), Request("the longest", 5)), "test")
    prompts = [each.prompt for each in replay.requests]
    with served_ranker(ranker, tmp_path, replay, 0) as address:
        assert address is not None
        with RankerClient(ClientConfig(address=address, deadline_ms=DEADLINE_MS)) as client:
            quantiles = [score.quantile for score in client.score(prompts).scores]
    assert [prompt for _, prompt in sorted(zip(quantiles, prompts, strict=True))] == first_to_last


def test_a_workload_that_holds_the_probe_keeps_its_length() -> None:
    known = recorded({PROBE: 900, "other": 1})
    score = known(PROBE)
    assert score is not None
    assert score.expected_tokens == 900


def test_every_arm_is_a_setting_that_the_hook_takes() -> None:
    names = [arm.name for arm in ARMS]
    assert len(set(names)) == len(names)
    assert {BASELINE, ORACLE} <= set(names)
    for arm in ARMS:
        HookSettings.from_environment({ENV_PREFIX + name.upper(): value for name, value in arm.hook.items()})
    assert {arm_named(name).window_ms for name in ("ours", "oracle", "random")} == {DEFAULT_WINDOW_MS}
    assert (arm_named("ours-5s").window_ms, arm_named("ours-shortest").window_ms, arm_named("equal").window_ms) == (
        5_000,
        None,
        0,
    )
    for variant in VARIANTS:
        HookSettings.from_environment({ENV_PREFIX + name.upper(): value for name, value in (variant.hook or {}).items()})
