"""The device-side floor of the RPC figures: the very prompts, tokenised, sorted and copied to the device beforehand."""

from benchmarks.bare import sorted_batches
from benchmarks.gpu.bound import Bound
from benchmarks.gpu.job import Job
from benchmarks.gpu.outcome import Outcome
from benchmarks.gpu.parity import padded
from benchmarks.gpu.sessions import device_session
from benchmarks.gpu.timing import timed
from sidecar.bundle import open_bundle
from sidecar.tokenization import PromptTokenizer

SINGLES = 64
"""Prompts that take turns alone: two stretches of the workload, in which the whole mix of lengths comes round twice."""


def measure_floor(job: Job, outcome: Outcome) -> None:
    """By precision: p50_ms and p99_ms of one prompt alone, prompts_per_s in sorted batches. One thread, the session the sidecar uses."""
    for precision, folder in job.bundles.items():
        bundle = open_bundle(folder)
        session = device_session(bundle, job.device)
        tokenized = PromptTokenizer.for_bundle(bundle).encode(job.prompts)
        output = bundle.manifest.input.output_name
        singles, batches = (
            [Bound(session, job.device, padded(session, bundle, batch), output) for batch in chosen]
            for chosen in (
                [[prompt] for prompt in tokenized[:SINGLES]],
                sorted_batches(tokenized, job.plan.floor_batch_prompts, 0),
            )
        )

        def in_turn(number: int, bounds: list[Bound] = singles) -> None:
            bounds[number % len(bounds)].run()

        def whole_pass(number: int, bounds: list[Bound] = batches) -> None:
            for bound in bounds:
                bound.run()

        alone = timed(in_turn, job.plan.floor_s, warm_up_calls=len(singles))
        passes = timed(whole_pass, job.plan.floor_s, warm_up_calls=2)
        outcome.figures[precision] = {
            "single_p50_ms": alone.p50_ms,
            "single_p99_ms": alone.p99_ms,
            "prompts_per_s": 1e3 * len(tokenized) / passes.mean_ms,
            "batch_prompts": job.plan.floor_batch_prompts,
        }
        outcome.keep()
