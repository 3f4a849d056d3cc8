import socket
from collections.abc import Iterator

import pytest
from scripted_ranker import ScriptedRanker


@pytest.fixture
def ranker() -> Iterator[ScriptedRanker]:
    server = ScriptedRanker()
    yield server
    server.stop()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, and nobody else can: the port is bound and refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"
