"""Fixtures of the benchmarks' tests: made-up quality runs, soak's bundles and what it knows of their scores."""

from pathlib import Path

import pytest
from made_up_runs import Runs, made_runs, with_everything
from soak_answers import SCORES

from benchmarks.soak.bundles import second_bundle
from benchmarks.soak.check import Known


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """To be changed by the test."""
    return made_runs(tmp_path)


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """With its page written. Do not change it."""
    made = with_everything(made_runs(tmp_path_factory.mktemp("everything")))
    made.text()
    return made


@pytest.fixture
def bundles(tiny_bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two valid ones that tell different tokens."""
    return tiny_bundle, second_bundle(tiny_bundle, tmp_path / "second")


@pytest.fixture
def known(bundles: tuple[Path, Path]) -> Known:
    known = Known(bundles)
    known.learn(SCORES)
    return known
