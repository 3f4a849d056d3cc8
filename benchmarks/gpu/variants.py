"""Latency and throughput of one session by batch and length, in several ways of running it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.gpu.bound import Bound
from benchmarks.gpu.job import Job
from benchmarks.gpu.outcome import Outcome, reason
from benchmarks.gpu.plan import Shape
from benchmarks.gpu.sessions import (
    Inputs,
    NotHereError,
    device_session,
    free_dimensions,
    graph_session,
    random_inputs,
    scores_of,
    tensorrt_session,
)
from benchmarks.gpu.timing import timed
from sidecar.bundle import open_bundle

ROTATION = 4
"""Sets of inputs that take turns, so that a variant which goes on answering the first is found out."""

SAME_SCORES = 0.05
"""Largest difference to a plain run, in score units: rounding stays well below it, the scores of other inputs do not."""

Ways = Mapping[str, Callable[[int], Any]]


def measure_variants(job: Job, outcome: Outcome) -> None:
    """Cells of every precision and shape:

    plain: a run from numpy to numpy, as the sidecar does. io_binding: copied into fixed buffers, run, copied back. on_device: the same
    without the copies, the floor. cuda_graph, graph_on_device: likewise with the run recorded and replayed.
    """
    outcome.figures["cells"] = cells = []
    for precision, folder in job.bundles.items():
        bundle = open_bundle(folder)
        output = bundle.manifest.input.output_name
        session = device_session(bundle, job.device)
        for shape in job.plan.shapes(bundle.manifest.input.max_tokens):
            inputs = [random_inputs(session, bundle, shape, seed) for seed in range(ROTATION)]
            wanted = [scores_of(session, output, each) for each in inputs]

            def plain(number: int, session: Any = session, output: str = output, inputs: list[Inputs] = inputs) -> Any:
                return scores_of(session, output, inputs[number % ROTATION])

            bound = Bound(session, job.device, inputs[0], output)
            ways: Ways = {"plain": plain, **_bound_ways(bound, inputs, "io_binding", "on_device")}
            cells += _cells(job, ways, wanted, precision, shape, outcome)
            if "cuda_graph" not in outcome.not_here and f"{precision}: cuda_graph" not in outcome.failures:
                try:
                    # A session for each shape, so a captured graph is never asked for another one: that would go unnoticed.
                    graph = graph_session(bundle, job.device, shape, free_dimensions(session))
                    bound = Bound(graph, job.device, inputs[0], output, {"gpu_graph_id": "1"})
                    ways = _bound_ways(bound, inputs, "cuda_graph", "graph_on_device")
                    cells += _cells(job, ways, wanted, precision, shape, outcome)
                except NotHereError as error:
                    outcome.not_here["cuda_graph"] = str(error)
                except Exception as error:  # the runtime raises bare exceptions of its own
                    outcome.failures[f"{precision}: cuda_graph"] = reason(error)
            outcome.keep()


def measure_tensorrt(job: Job, outcome: Outcome) -> None:
    """Cells of a few shapes beside a plain session of the first bundle, in TensorRT's own fp16 and fp32."""
    bundle = open_bundle(next(iter(job.bundles.values())))
    output = bundle.manifest.input.output_name
    shapes = tuple(shape for shape in job.plan.tensorrt_shapes if shape.prompt_tokens <= bundle.manifest.input.max_tokens)
    outcome.figures["cells"] = cells = []
    plain = device_session(bundle, job.device)
    inputs = {shape: [random_inputs(plain, bundle, shape, seed) for seed in range(ROTATION)] for shape in shapes}
    for fp16 in (True, False):
        precision = "fp16" if fp16 else "fp32"
        try:
            session = tensorrt_session(bundle, job.device, shapes, fp16=fp16)
        except NotHereError as error:
            outcome.not_here["tensorrt"] = str(error)
            break
        except Exception as error:  # as above
            outcome.failures[f"{precision}: tensorrt"] = reason(error)
            continue
        for shape in shapes:
            wanted = [scores_of(plain, output, each) for each in inputs[shape]]
            bound = Bound(session, job.device, inputs[shape][0], output)
            ways = _bound_ways(bound, inputs[shape], "tensorrt", "tensorrt_on_device")
            cells += _cells(job, ways, wanted, precision, shape, outcome)
            outcome.keep()
    outcome.keep()


def _bound_ways(bound: Bound, inputs: list[Inputs], copied: str, on_device: str) -> Ways:
    return {copied: lambda number: bound.score(inputs[number % ROTATION]), on_device: lambda _: bound.run()}


def _cells(job: Job, ways: Ways, wanted: list[Any], precision: str, shape: Shape, outcome: Outcome) -> list[dict[str, Any]]:
    """One figure each; a way that scores differently from the plain run has failed and gets none."""
    cells = []
    for variant, call in ways.items():
        what = f"{precision}: {variant} at {shape.batch_prompts} x {shape.prompt_tokens}"
        try:
            timing = timed(call, job.plan.cell_s)
            # After the timing: a CUDA graph is then surely replayed, not captured.
            scores = [call(number) for number in range(ROTATION)]
        except Exception as error:  # as above
            outcome.failures[what] = reason(error)
            continue
        cell: dict[str, Any] = {"precision": precision, "variant": variant, **shape._asdict()}
        if scores[0] is not None:
            difference = max(float(np.abs(one - other).max()) for one, other in zip(scores, wanted, strict=True))
            if not difference <= SAME_SCORES:
                outcome.failures[what] = f"scores differ from a plain run by {difference:.3g}"
                continue
            cell["max_score_difference"] = difference
        cell |= {"calls": timing.calls, "p50_ms": timing.p50_ms, "p99_ms": timing.p99_ms}
        cells.append(cell | {"prompts_per_s": 1e3 * shape.batch_prompts / timing.mean_ms})
    return cells
