"""Fixtures of the sidecar's tests: the rig around a fake model, the tiny bundle, a server on a free port."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sidecar_tiny
from sidecar_process import Sidecar, StartSidecar
from sidecar_rig import Rig
from sidecar_served import Served, StartServed

from sidecar.ranker import Ranker


@pytest_asyncio.fixture
async def make_rig() -> AsyncIterator[Callable[..., Rig]]:
    """Makes rigs and closes them, whatever the test did to them."""
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        rigs.append(Rig(**options))
        return rigs[-1]

    yield make
    for rig in rigs:
        await rig.close()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid bundle, to be read only."""
    return sidecar_tiny.make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def own_bundle(tmp_path: Path) -> Path:
    """A valid bundle to be damaged by the test."""
    return sidecar_tiny.make_bundle(tmp_path / "bundle")


@pytest.fixture(scope="session")
def tiny_ranker(tiny_bundle: Path) -> Ranker:
    return Ranker.load(tiny_bundle, "cpu", 1)


@pytest_asyncio.fixture
async def start_served(tiny_ranker: Ranker) -> AsyncIterator[StartServed]:
    """Starts servers on free ports and stops them, whatever the test did to them."""
    running: list[Served] = []

    async def start(rig: Rig | None = None, **options: Any) -> Served:
        running.append(await Served.start(tiny_ranker, rig, **options))
        return running[-1]

    yield start
    for served in running:
        await served.close()


@pytest_asyncio.fixture
async def served(start_served: StartServed) -> Served:
    """The tiny bundle behind a real server."""
    return await start_served()


@pytest.fixture
def start_sidecar() -> Iterator[StartSidecar]:
    started: list[Sidecar] = []

    def start(bundle: Path, *arguments: str, **environment: str) -> Sidecar:
        started.append(Sidecar(bundle, *arguments, **environment))
        return started[-1]

    yield start
    for sidecar in started:
        sidecar.close()
