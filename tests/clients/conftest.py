"""Real sidecars for the clients to call, and each language in turn."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from example_clients import BUILT, LANGUAGES, REPOSITORY
from sidecar_process import Sidecar


@pytest.fixture(scope="session", autouse=True)
def _built() -> None:
    wanted = [BUILT / "go" / "client", BUILT / "cpp" / "client", BUILT / "node" / "node_modules"]
    missing = [str(path.relative_to(REPOSITORY)) for path in wanted if not path.exists()]
    if missing:
        pytest.fail(f"no {', '.join(missing)}: run `make clients-env`", pytrace=False)


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    """Each language in turn."""
    return str(request.param)


@contextmanager
def serve(bundle: Path, address: str) -> Iterator[Sidecar]:
    process = Sidecar(bundle, "--address", address, "--workers", "1")
    try:
        process.serving()
        yield process
    finally:
        process.close()


@pytest.fixture(scope="session")
def sidecar(tiny_bundle: Path) -> Iterator[Sidecar]:
    """Serves a trained ranker, whose scores are no round numbers, on a free TCP port."""
    with serve(tiny_bundle, "127.0.0.1:0") as served:
        yield served


@pytest.fixture(scope="session")
def sidecar_on_a_socket(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """The same on a unix socket."""
    with serve(tiny_bundle, f"unix:{tmp_path_factory.mktemp('clients')}/pars.sock") as served:
        yield served
