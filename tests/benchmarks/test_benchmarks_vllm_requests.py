"""What is kept of each request of a run on a real vLLM."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_vllm.rankers import oracle
from benchmarks.bench_vllm.requests import estimates_of, requests_of
from benchmarks.replay import from_seed


def test_each_request_is_kept() -> None:
    result: dict[str, Any] = {
        "start_times": [100.5, 100.0, 101.0],
        "ttfts": [0.1, 0.2, 0.3],
        "latencies": [1.0, 2.0, 3.0],
        "itls": [[0.1], [0.2, 0.3], []],
        "input_lens": [7, 8, 9],
        "output_lens": [10, 20, 30],
        "errors": ["", "", "refused"],
    }
    assert requests_of(result) == {
        "sent_s": [0.5, 0.0, 1.0],
        "ttft_s": [0.1, 0.2, 0.3],
        "e2e_s": [1.0, 2.0, 3.0],
        "gaps_s": [[0.1], [0.2, 0.3], []],
        "prompt_tokens": [7, 8, 9],
        "output_tokens": [10, 20, 30],
        "errors": ["", "", "refused"],
    }


def test_the_ranker_is_asked_again(tmp_path: Path) -> None:
    replay = from_seed(300, 1)
    replay.write(tmp_path / "w.jsonl")
    lengths = [each.output_tokens for each in replay.requests]
    with oracle(f"unix:{tmp_path}/o.sock", "--workload", str(tmp_path / "w.jsonl")):
        said = estimates_of(f"unix:{tmp_path}/o.sock", [each.prompt for each in replay.requests])
    assert said["expected_tokens"] == lengths
    assert np.argsort(said["quantile"], kind="stable").tolist() == np.argsort(lengths, kind="stable").tolist()
