"""The rig around a real vLLM. pytest runs in the ordinary environment; vLLM is a process from its own, made by `make vllm-env`.

    vllm_bin      folder with `vllm` and `python` of that environment: $PARS_TEST_VLLM_BIN, else .venv-vllm/bin
    tiny_model    a model folder of 150 kB, without weights (use --load-format dummy); served under the name "tiny"
    serve         with serve(*flags, **environment) as server: a `vllm serve` of the test's own, see VllmServer
    ranker_address  unix: address that is free, and short enough for a socket
    fleet         fleet("hooked"): a server of the table in `shared_servers.py`, started when first asked for and shared by all tests;
                  at most two run at a time, the least recently used one makes room
    ranker        a QuantileRanker where the shared servers look for the sidecar, for the tests of one module
    plain_reply   await plain_reply(name): what a vLLM without the hook answers to that case of rude_requests.py

Every start takes half a minute and 2.4 GB: share servers where a test can, and keep tests that share one in one file.
"""

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from http_wire import Reply
from quantile_ranker import QuantileRanker
from rude_requests import CASES, reply_to
from shared_servers import PLAIN, Fleet
from vllm_server import VllmServer

from benchmarks.bench_vllm.tiny_llama import make_model

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent
TEST_TIMEOUT_S = 480
"""A test that is the first to ask for a server pays for its start."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))
        if HERE in item.path.parents:
            # Engine, API servers, sidecar and client share two cores, and a virtual machine that stands still for seconds makes every
            # deadline pass at once. A second chance tells that from a fault; the summary counts who needed it.
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def vllm_bin() -> Path:
    folder = Path(os.environ.get("PARS_TEST_VLLM_BIN") or REPOSITORY / ".venv-vllm/bin")
    if not (folder / "vllm").exists():
        pytest.fail(f"no vLLM in {folder}: run `make vllm-env`, or set PARS_TEST_VLLM_BIN", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("vllm") / "tiny")


@pytest.fixture(scope="session")
def socket_folder() -> Iterator[Path]:
    """A folder with a short name: a socket's whole path has 107 bytes at most, and pytest's own folders are deep."""
    folder = Path(tempfile.mkdtemp(prefix="pars-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def ranker_address(socket_folder: Path) -> Iterator[str]:
    path = socket_folder / "own.sock"
    yield f"unix:{path}"
    path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def serve(vllm_bin: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """serve(*flags, wait=True, **environment): a context manager with a VllmServer that is up, or with wait=False just begun."""

    @contextmanager
    def start(*flags: str, wait: bool = True, **environment: str) -> Iterator[VllmServer]:
        folder = tmp_path_factory.mktemp("served") / "cwd"
        # One cache for all: the second start is spared looking at the model's class in a process of its own.
        cache = tmp_path_factory.getbasetemp() / "vllm-cache"
        server = VllmServer(vllm_bin, tiny_model, folder, flags, {"VLLM_CACHE_ROOT": str(cache)} | environment)
        try:
            if wait:
                server.wait_until_up()
            yield server
        finally:
            server.close()

    return start


@pytest.fixture(scope="session")
def fleet(serve: Any, socket_folder: Path) -> Iterator[Fleet]:
    shared = Fleet(serve, socket_folder)
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def ranker(fleet: Fleet) -> Iterator[QuantileRanker]:
    server = QuantileRanker(fleet.ranker_address)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def plain_reply(fleet: Fleet) -> Callable[[str], Awaitable[Reply]]:
    known: dict[str, Reply] = {}

    async def reply(name: str) -> Reply:
        if name not in known:
            known[name] = await reply_to(fleet(PLAIN), CASES[name])
        return known[name]

    return reply
