"""What training costs until it reaches the reference's tau-b, worked out by hand."""

from pathlib import Path

import pytest
from made_up_runs import history

from benchmarks.quality.cost import best_point, cost_ratios, first_reaching, side_by_side
from benchmarks.quality.results import Result


def result(
    method: str, *points: tuple[float, int, float], dataset: str = "a", experiment: str = "main", seed: int = 0
) -> Result:
    names = {"experiment": experiment, "dataset": dataset, "method": method, "seed": seed}
    return Result(method, {**names, "history": history(*points)}, Path("none.npz"))


REFERENCE = result("reference", (10.0, 100, 0.3), (20.0, 200, 0.5), (30.0, 300, 0.5), (40.0, 400, 0.4))


def test_the_first_of_equal_evaluations_counts() -> None:
    assert best_point(REFERENCE.figures["history"])["train_cpu_seconds"] == 20.0
    reached = first_reaching(REFERENCE.figures["history"], 0.5)
    assert reached is not None
    assert reached["train_cpu_seconds"] == 20.0
    assert first_reaching(REFERENCE.figures["history"], 0.51) is None


def test_time_to_the_references_tau() -> None:
    ours = result("ours", (1.0, 10, 0.49), (3.0, 25, 0.55), (4.0, 50, 0.6))
    (compared,) = side_by_side([REFERENCE, ours])
    assert (compared.tau, compared.reference_cpu_seconds, compared.reference_forwards) == (0.5, 20.0, 200)
    assert (compared.cpu_seconds, compared.forwards, compared.time_ratio) == (3.0, 25, pytest.approx(0.15))
    assert (compared.whole_cpu_seconds, compared.whole_time_ratio) == (40.0, pytest.approx(0.075))
    ratios = cost_ratios([compared])
    assert ratios["time_to_reference_tau"] == pytest.approx(0.15)
    assert ratios["time_to_reference_tau_of_whole"] == pytest.approx(0.075)
    assert ratios["reference_forwards_over_ours"] == pytest.approx(8)


def test_never_is_infinitely_slow() -> None:
    """Three sets: 0.1, 0.4, never: the median is 0.4. Two of three never: there is no median."""
    other = [result("reference", (10.0, 100, 0.5), dataset=name) for name in "abc"]
    reaching = [result("ours", (seconds, 10, 0.5), dataset=name) for name, seconds in (("a", 1.0), ("b", 4.0))]
    never = [result("ours", (9.0, 10, 0.4), dataset=name) for name in "bc"]
    ratios = cost_ratios(side_by_side([*other, *reaching, never[1]]))
    assert ratios["time_to_reference_tau"] == pytest.approx(0.4)
    assert (ratios["time_to_reference_tau_best"], ratios["time_to_reference_tau_worst"]) == (pytest.approx(0.1), None)
    assert (ratios["time_compared_runs"], ratios["time_never_reached"]) == (3, 1)
    ratios = cost_ratios(side_by_side([*other, reaching[0], *never]))
    assert (ratios["time_to_reference_tau"], ratios["reference_forwards_over_ours"]) == (None, None)


def test_the_experiment_about_cost_is_the_one_that_counts() -> None:
    ours = result("ours", (3.0, 25, 0.55))
    in_cost = [
        result("reference", (10.0, 100, 0.5), experiment="cost"),
        result("ours", (5.0, 50, 0.5), experiment="cost"),
        result("another", (2.0, 20, 0.5), experiment="cost"),
    ]
    compared = side_by_side([REFERENCE, ours, *in_cost])
    assert [(each.experiment, each.method) for each in compared] == [("cost", "ours"), ("cost", "another")]
    # The headline is of ours alone.
    assert cost_ratios(compared)["time_to_reference_tau"] == pytest.approx(0.5)
    assert cost_ratios([compared[1]]) == {}


def test_other_seeds_and_sets_are_not_compared() -> None:
    assert side_by_side([REFERENCE, result("ours", (1.0, 1, 0.9), seed=1), result("ours", (1.0, 1, 0.9), dataset="b")]) == []
