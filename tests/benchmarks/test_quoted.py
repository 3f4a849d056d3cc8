"""What README and docs say when a part of a measurement is missing: that it is, not nothing, and never an error."""

from copy import deepcopy

import pytest

from benchmarks.quoted.__main__ import precisions, reaches, read_results
from benchmarks.quoted.operations import promised


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("tau", "Order on held-out prompts is not measured yet"),
        ("parity", "How far the exported graph is from PyTorch is not measured yet"),
    ],
)
def test_a_part_of_the_chain_that_failed_is_said_to_be_missing(part: str, said: str) -> None:
    whole = read_results()
    chain = {key: value for key, value in whole["chain"].items() if key != part}
    assert said not in reaches(whole)
    assert said in reaches({**whole, "chain": chain})


def test_without_exports_no_precision_is_told() -> None:
    assert precisions({"chain": {}}) == precisions({}) == "Not measured yet: `make bench-chain`."


def test_a_soak_that_ended_early_can_be_quoted() -> None:
    results = deepcopy(dict(read_results()))
    sidecar = results["soak"]["sidecars"][0]
    sidecar |= {"growth": None, "reloads": {}, "exit_code": None}
    assert "| 0 / 0 / 0 | not measured | not measured | not measured | None |" in promised(results)
