"""The prompts that are scored, and how the bare session's batches are cut."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bare import sorted_batches
from benchmarks.workload import LONG_EVERY, STRETCH_PROMPTS, balanced, from_file, made_up, sample
from sidecar.scorer import TokenizedPrompt


def words(prompt: str) -> int:
    return len(prompt.split())


def test_one_seed_one_workload() -> None:
    assert made_up(64, 3) == made_up(64, 3)
    assert made_up(64, 3).sha256 == made_up(64, 3).sha256
    assert made_up(64, 3).sha256 != made_up(64, 4).sha256
    assert len(set(made_up(512, 0).prompts)) == 512


def test_lengths_are_those_of_real_prompts() -> None:
    counts = sorted(map(words, made_up(512, 0).prompts))
    long = [count for count in counts if count > 60]
    assert len(long) == 512 // LONG_EVERY
    ordinary = counts[: -len(long)]
    assert ordinary[0] >= 7
    assert ordinary[-1] <= 54
    assert 20 <= sum(ordinary) / len(ordinary) <= 24  # 26 tokens or so


def test_every_stretch_is_a_fair_sample() -> None:
    prompts = ["x" * length for length in range(1, 513)]
    order = balanced(prompts, seed=1)
    assert sorted(order) == sorted(prompts)
    sums = [sum(map(len, order[start : start + STRETCH_PROMPTS])) for start in range(0, 512, STRETCH_PROMPTS)]
    assert max(sums) < 1.05 * min(sums)


@pytest.mark.parametrize("count", [1, 5, 31, 33, 100])
def test_balancing_loses_no_prompt(count: int) -> None:
    prompts = [f"{'x' * (n % 7)} {n}" for n in range(count)]
    assert sorted(balanced(prompts, seed=0)) == sorted(prompts)


def test_a_sample_reaches_from_the_shortest_to_the_longest() -> None:
    prompts = ["x" * length for length in (7, 3, 9, 1, 5, 8, 2, 6, 4)]
    assert [len(prompt) for prompt in sample(prompts, 5)] == [1, 3, 5, 7, 9]
    assert [len(prompt) for prompt in sample(prompts, 2)] == [1, 9]
    assert sample(prompts[:2], 16) == ["xxx", "x" * 7]
    assert sample(["one"], 16) == ["one"]
    assert len(sample(made_up(512, 0).prompts, 16)) == 16


def test_prompts_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"prompt {n}"}) + "\n" for n in range(3)), encoding="utf-8")
    workload = from_file(path, seed=0)
    assert sorted(workload.prompts) == ["prompt 0", "prompt 1", "prompt 2"]
    assert workload.source == "some.jsonl"


def tokenized(*lengths: int) -> list[TokenizedPrompt]:
    return [TokenizedPrompt(np.zeros(length, dtype=np.int64), truncated=False) for length in lengths]


def lengths_of(batches: list[list[TokenizedPrompt]]) -> list[list[int]]:
    return [[len(prompt.token_ids) for prompt in batch] for batch in batches]


def test_batches_hold_neighbours_in_length_and_the_most_work_comes_first() -> None:
    prompts = tokenized(5, 1, 4, 2, 3)
    assert lengths_of(sorted_batches(prompts, 2, 0)) == [[3, 4], [5], [1, 2]]
    assert lengths_of(sorted_batches(prompts, 2, 3)) == [[1, 4], [2, 3], [5]]
