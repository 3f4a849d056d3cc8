"""The limit: the bundle's ONNX session and tokenizer with nothing around them. `python -m benchmarks.bare` answers jobs.

The session is the sidecar's own, opened the same way; what is missing is everything that makes a server of it.
"""

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.closed_loop import prompt_batches
from benchmarks.jobs import AloneJob, AroundJob, FullTiltJob, answer_jobs
from benchmarks.measurement import Call, Recording
from benchmarks.workload import sample
from pars.v1 import ranker_pb2
from sidecar import golden
from sidecar.bundle import open_bundle
from sidecar.cores import allotted_cores
from sidecar.encoder import open_encoder
from sidecar.scorer import ProviderChoice, TokenizedPrompt
from sidecar.session import CUDA
from sidecar.settings import CUDA_WORKERS
from sidecar.tokenization import PromptTokenizer
from vllm_client.prompt_files import read_prompts

WARM_UP_CALLS = 20
"""Before a latency job: a session that has idled runs its first batches with cold caches and a clock turned down."""


SAMPLE_PROMPTS = 16


class Bare:
    """One bundle, loaded. threads: as many as the sidecar has workers by default, on one shared session.

    about["sample"]: some of the prompts with their scores, for others who claim to serve the same weights.
    """

    def __init__(self, bundle_folder: Path, provider: ProviderChoice, prompts: Sequence[str]) -> None:
        bundle = open_bundle(bundle_folder)
        self._prompts = prompts
        self._tokenizer = PromptTokenizer.for_bundle(bundle)
        self._tokenized = self._tokenizer.encode(prompts)
        cores = allotted_cores()
        self._scorer = open_encoder(bundle, provider, workers=cores)
        golden.replay(bundle, self._scorer, "score")
        self._wide_scorer = open_encoder(bundle, provider, threads=cores)
        golden.replay(bundle, self._wide_scorer, "score")
        on_gpu = self._scorer.provider == CUDA
        self._threads = CUDA_WORKERS if on_gpu else cores
        chosen = sample(prompts, SAMPLE_PROMPTS)
        scores = [float(self._scorer.score([prompt])[0]) for prompt in self._tokenizer.encode(chosen)]
        tokens = [len(prompt.token_ids) for prompt in self._tokenized]
        self.about: dict[str, Any] = {
            "bundle_id": bundle.bundle_id,
            "model_name": bundle.manifest.model_name,
            "execution_provider": self._scorer.provider,
            "on_gpu": on_gpu,
            "has_ngram": bundle.ngram_weights is not None,
            "threads": self._threads,
            "tokens": {
                "mean": float(np.mean(tokens)),
                **{f"p{percent}": float(np.percentile(tokens, percent)) for percent in (1, 50, 90, 99)},
                "longest": max(tokens),
            },
            "sample": {"prompts": chosen, "scores": scores},
        }

    def do(self, job: AloneJob | FullTiltJob | AroundJob) -> Recording:
        if isinstance(job, FullTiltJob):
            return self._full_tilt(job)
        return one_after_the_other(self._around(job) if isinstance(job, AroundJob) else self._alone(job), job.seconds)

    def _alone(self, job: AloneJob) -> Callable[[], Call]:
        scorer = self._scorer if job.cores == "one" else self._wide_scorer
        pairs = itertools.cycle(zip(self._prompts, self._tokenized, strict=True))

        def one_call() -> Call:
            text, tokenized = next(pairs)
            if job.pause_s:
                time.sleep(job.pause_s)
            began_s = time.monotonic()
            batch = self._tokenizer.encode([text]) if job.tokenize else [tokenized]
            scorer.score(batch)
            return Call(began_s, time.monotonic(), 1, len(tokenized.token_ids))

        return one_call

    def _around(self, job: AroundJob) -> Callable[[], Call]:
        batches = prompt_batches(self._prompts, 0, job.prompts_per_call)

        def one_call() -> Call:
            prompts = next(batches)
            began_s = time.monotonic()
            if job.what == "tokenise":
                self._tokenizer.encode(prompts)
            else:
                request = ranker_pb2.ScoreRequest(prompts=prompts, tier=ranker_pb2.TIER_ENCODER)
                ranker_pb2.ScoreRequest.FromString(request.SerializeToString())
                ranker_pb2.ScoreResponse.FromString(_reply(len(prompts)).SerializeToString())
            return Call(began_s, time.monotonic(), len(prompts), tokens=0)

        return one_call

    def _full_tilt(self, job: FullTiltJob) -> Recording:
        batches = sorted_batches(self._tokenized, job.batch_prompts, job.group_prompts)
        self._scorer.score(batches[0])
        calls: list[Call] = []
        begin_s, began_cpu_s = time.monotonic(), time.process_time()
        # Whoever comes for the first batch of another pass after the time is up ends the job.
        endless = itertools.cycle(range(len(batches)))
        lock, over = threading.Lock(), False

        def take() -> list[TokenizedPrompt] | None:
            nonlocal over
            with lock:
                if over:
                    return None
                number = next(endless)
                over = number == 0 and bool(calls) and time.monotonic() - begin_s >= job.seconds
                return None if over else batches[number]

        def work() -> None:
            while batch := take():
                began_s = time.monotonic()
                self._scorer.score(batch)
                tokens = sum(len(prompt.token_ids) for prompt in batch)
                calls.append(Call(began_s, time.monotonic(), len(batch), tokens))

        threads = [threading.Thread(target=work) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Recording(begin_s, time.monotonic(), calls, {}, time.process_time() - began_cpu_s)


def one_after_the_other(one_call: Callable[[], Call], seconds: float) -> Recording:
    """Warm up, then call again and again."""
    for _ in range(WARM_UP_CALLS):
        one_call()
    begin_s, began_cpu_s = time.monotonic(), time.process_time()
    end_s = begin_s + seconds
    calls = []
    while time.monotonic() < end_s:
        calls.append(one_call())
    return Recording(begin_s, end_s, calls, {}, time.process_time() - began_cpu_s)


def _reply(prompts: int) -> ranker_pb2.ScoreResponse:
    """One of the size that the sidecar sends."""
    score = ranker_pb2.PromptScore(
        score=0.1,
        quantile=0.2,
        expected_tokens=100.0,
        expected_tokens_p90=300.0,
        prompt_tokens=20,
        tier=ranker_pb2.TIER_ENCODER,
    )
    timing = ranker_pb2.Timing(tokenize_time_ns=100_000, queue_time_ns=1_000_000, infer_time_ns=2_000_000)
    return ranker_pb2.ScoreResponse(scores=[score] * prompts, bundle_id="0" * 64, timing=timing)


def sorted_batches(prompts: Sequence[TokenizedPrompt], batch_prompts: int, group_prompts: int) -> list[list[TokenizedPrompt]]:
    """All prompts in batches of neighbours in length. group_prompts: sort within so many consecutive ones only; 0: all.

    The longest batch comes first, so that at the end of a pass no thread idles long beside another's last batch.
    """
    group = group_prompts or len(prompts)
    batches = []
    for start in range(0, len(prompts), group):
        ascending = sorted(prompts[start : start + group], key=lambda prompt: len(prompt.token_ids))
        batches += [ascending[first : first + batch_prompts] for first in range(0, len(ascending), batch_prompts)]
    return sorted(batches, key=lambda batch: -len(batch) * len(batch[-1].token_ids))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--provider", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--prompts", required=True, help=".jsonl with the prompts, in the order to send them")
    flags = parser.parse_args(arguments)
    bare = Bare(flags.bundle, flags.provider, read_prompts(flags.prompts))
    answer_jobs(bare.about, bare.do)
    return 0


if __name__ == "__main__":
    sys.exit(main())
