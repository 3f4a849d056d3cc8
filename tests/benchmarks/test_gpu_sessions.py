"""The GPU benchmark's ways of running a session, on the CPU: fixed buffers, floor, parity; and what only a GPU can do."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu.bound import Bound
from benchmarks.gpu.floor import measure_floor
from benchmarks.gpu.job import Job
from benchmarks.gpu.outcome import Outcome
from benchmarks.gpu.parity import compared, measure_parity, padded
from benchmarks.gpu.plan import FULL, SMOKE, Shape
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
from benchmarks.gpu.timing import LEAST_CALLS, timed
from benchmarks.gpu.variants import measure_tensorrt, measure_variants
from benchmarks.workload import made_up
from sidecar.bundle import Bundle, open_bundle
from sidecar.session import CPU, OnnxScorer
from sidecar.tokenization import PromptTokenizer

SHAPE = Shape(3, 8)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def job(tiny_bundle: Path) -> Job:
    return Job({"fp32": tiny_bundle, "again": tiny_bundle}, "cpu", SMOKE, made_up(SMOKE.prompts, 0).prompts)


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    return Outcome(tmp_path / "part.json")


def test_fixed_buffers_score_what_a_plain_run_scores(bundle: Bundle) -> None:
    session = device_session(bundle, "cpu")
    output = bundle.manifest.input.output_name
    first, second = (random_inputs(session, bundle, SHAPE, seed) for seed in (1, 2))
    untouched = {name: array.copy() for name, array in first.items()}
    bound = Bound(session, "cpu", first, output)
    wanted_first, wanted_second = (scores_of(session, output, each) for each in (first, second))
    assert not np.allclose(wanted_first, wanted_second, atol=1e-4)
    np.testing.assert_array_equal(bound.score(first), wanted_first)
    np.testing.assert_array_equal(bound.score(second), wanted_second)
    # The floor: what lies on the device is scored, again and again.
    bound.put(first)
    bound.run()
    np.testing.assert_array_equal(bound.scores(), wanted_first)
    for name, array in untouched.items():
        np.testing.assert_array_equal(first[name], array, "the caller's array was written to")


def test_the_session_is_the_sidecars(bundle: Bundle) -> None:
    batch = PromptTokenizer.for_bundle(bundle).encode(["", "a story about a river", "list three reasons why the teacher left"])
    session = device_session(bundle, "cpu")
    scores = scores_of(session, bundle.manifest.input.output_name, padded(session, bundle, batch))
    np.testing.assert_array_equal(scores, OnnxScorer(bundle, "cpu").score(batch))
    assert session.get_providers() == [CPU]


def test_the_graphs_free_dimensions_are_batch_and_length(bundle: Bundle) -> None:
    assert free_dimensions(device_session(bundle, "cpu")) == ("batch_size", "sequence_length")


def test_what_needs_a_gpu_says_so(bundle: Bundle) -> None:
    with pytest.raises(NotHereError, match="CUDA graph"):
        graph_session(bundle, "cpu", SHAPE, ("batch_size", "sequence_length"))
    with pytest.raises(NotHereError, match="TensorRT"):
        tensorrt_session(bundle, "cpu", (SHAPE,), fp16=True)


def test_variants_cover_precisions_and_shapes(job: Job, outcome: Outcome) -> None:
    measure_variants(job, outcome)
    assert outcome.failures == {}
    assert outcome.not_here == {"cuda_graph": "a CUDA graph needs the CUDA provider"}
    cells = outcome.figures["cells"]
    found = {(cell["precision"], cell["variant"], cell["batch_prompts"], cell["prompt_tokens"]) for cell in cells}
    assert len(found) == len(cells) == 2 * 3 * 2
    assert {variant for _, variant, *_ in found} == {"plain", "io_binding", "on_device"}
    assert all(0 < cell["p50_ms"] <= cell["p99_ms"] and cell["calls"] >= 1 for cell in cells)
    assert all(cell["max_score_difference"] == 0 for cell in cells if cell["variant"] == "io_binding")


def test_a_variant_that_goes_on_answering_the_first_inputs_has_no_figure(
    job: Job, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, filled = Bound.put, set[int]()

    def only_once(self: Bound, inputs: Inputs) -> None:
        if id(self) not in filled:
            honest(self, inputs)
            filled.add(id(self))
            bounds.append(self)

    bounds: list[Bound] = []  # kept, so that no number is given twice
    monkeypatch.setattr(Bound, "put", only_once)
    monkeypatch.setattr("benchmarks.gpu.variants.SAME_SCORES", 1e-4)  # the tiny model's scores lie close together
    measure_variants(job, outcome)
    assert {cell["variant"] for cell in outcome.figures["cells"]} == {"plain", "on_device"}
    assert "scores differ" in outcome.failures["fp32: io_binding at 4 x 8"]


def test_tensorrt_is_not_on_this_machine(job: Job, outcome: Outcome) -> None:
    measure_tensorrt(job, outcome)
    assert outcome.failures == {}
    assert outcome.figures["cells"] == []
    assert "TensorRT" in outcome.not_here["tensorrt"]


def test_the_floor_is_of_the_same_prompts(job: Job, outcome: Outcome) -> None:
    measure_floor(job, outcome)
    assert set(outcome.figures) == {"fp32", "again"}
    assert all(each["prompts_per_s"] > 0 and each["single_p50_ms"] > 0 for each in outcome.figures.values())


def test_parity_of_a_device_with_itself(job: Job, outcome: Outcome) -> None:
    measure_parity(job, outcome)
    assert outcome.failures == {}
    for figures in outcome.figures.values():
        assert figures["max_score_difference"] == figures["inverted_pairs_share"] == 0
        assert figures["kendall_tau_b"] == figures["tau_b_to_first_precision_on_cpu"] == pytest.approx(1.0)
        assert figures["golden_tolerance"] > 0
        assert figures["score_standard_deviation"] > 0


def test_golden_prompts_that_stray_are_a_failure(job: Job, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = OnnxScorer.score
    monkeypatch.setattr(OnnxScorer, "score", lambda self, batch: honest(self, batch) + np.float32(0.5))
    measure_parity(job, outcome)
    assert set(outcome.failures) == {"fp32: golden prompts", "again: golden prompts"}
    assert "WarmUpError" in outcome.failures["fp32: golden prompts"]


def test_an_inverted_pair_is_counted() -> None:
    reference = np.array([0.0, 1.0, 2.0, 2.0], dtype=np.float32)
    scores = np.array([0.0, 2.0, 1.5, 2.5], dtype=np.float32)
    figures = compared(scores, reference)
    # Six pairs, one of them tied in the reference; of the other five, 1.0 before 2.0 was turned round once.
    assert figures["inverted_pairs_share"] == pytest.approx(1 / 5)
    assert figures["max_score_difference"] == 1.0
    assert figures["mean_score_difference"] == pytest.approx((1.0 + 0.5 + 0.5) / 4)


def test_calls_are_timed_after_the_warm_up() -> None:
    numbers: list[int] = []
    timing = timed(numbers.append, 1e-9, warm_up_calls=3)
    assert numbers[:4] == [0, 1, 2, 0]
    assert timing.calls == len(numbers) - 3
    timing = timed(numbers.append, 0.05, warm_up_calls=0)
    assert timing.calls >= LEAST_CALLS
    assert 0 <= timing.p50_ms <= timing.p99_ms


def test_the_grid_leaves_out_what_the_bundle_does_not_read() -> None:
    assert {shape.prompt_tokens for shape in FULL.shapes(max_tokens=32)} == {16, 32}
    assert len(FULL.shapes(max_tokens=128)) == 16
