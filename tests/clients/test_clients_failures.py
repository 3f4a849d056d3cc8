"""What goes wrong reaches the user of every language as a gRPC status, and in time."""

import signal
import socket
import time
from contextlib import closing

import pytest
from example_clients import DEADLINE_MS, LANGUAGES, WAIT_S, Outcome, command_line, ended, run, start
from sidecar_process import Sidecar

from vllm_client import ClientConfig, InvalidPromptsError, RankerClient

CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, UNAVAILABLE = 1, 3, 4, 14
assert DEADLINE_MS / 1000 < WAIT_S


def test_no_prompts(language: str, sidecar: Sidecar) -> None:
    """The server's status arrives, with its own words."""
    config = ClientConfig(address=sidecar.address, deadline_ms=DEADLINE_MS)
    with RankerClient(config) as client, pytest.raises(InvalidPromptsError) as raised:
        client.score([])
    _, _, message = str(raised.value).partition("INVALID_ARGUMENT: ")
    assert message
    outcome = run(language, sidecar.address, "score")
    assert outcome == Outcome(64 + INVALID_ARGUMENT, "", f"status 3: {message}\n")


def test_nobody_listens(language: str) -> None:
    """1. a port that is taken and not listened on 2. UNAVAILABLE, long before the deadline."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        started = time.monotonic()
        outcome = run(language, f"127.0.0.1:{taken.getsockname()[1]}", "score", "short")
        took_s = time.monotonic() - started
    assert (outcome.exit_code, outcome.out) == (64 + UNAVAILABLE, "")
    assert outcome.err.startswith("status 14: ")
    assert took_s < DEADLINE_MS / 1000


def test_a_frozen_sidecar(sidecar: Sidecar) -> None:
    """1. the process is stopped, as by a debugger 2. every client, with a second to go, ends with DEADLINE_EXCEEDED 3. the process
    goes on 4. every client is answered."""
    sidecar.process.send_signal(signal.SIGSTOP)
    try:
        running = [start(command_line(language, sidecar.address, 1_000, "score", ["short"])) for language in LANGUAGES]
        outcomes = {language: ended(process) for language, process in zip(LANGUAGES, running, strict=True)}
    finally:
        sidecar.process.send_signal(signal.SIGCONT)
    for language, outcome in outcomes.items():
        assert (outcome.exit_code, outcome.out) == (64 + DEADLINE_EXCEEDED, ""), language
        assert outcome.err.startswith("status 4: "), language
    for language in LANGUAGES:
        assert run(language, sidecar.address, "health").reply() == {"status": "SERVING"}, language


def test_ctrl_c(language: str) -> None:
    """1. a client waits for a server that says nothing 2. Ctrl-C 3. it ends with CANCELLED, long before the deadline."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        silent.settimeout(WAIT_S)
        started = time.monotonic()
        process = start(command_line(language, f"127.0.0.1:{silent.getsockname()[1]}", DEADLINE_MS, "score", ["short"]))
        with closing(silent.accept()[0]):
            process.send_signal(signal.SIGINT)
            outcome = ended(process)
        took_s = time.monotonic() - started
    assert (outcome.exit_code, outcome.out) == (64 + CANCELLED, "")
    assert outcome.err.startswith("status 1: ")
    assert took_s < DEADLINE_MS / 1000


def test_a_command_line_that_makes_no_sense(language: str) -> None:
    """No call is made: exit code 2, and one line that says how to do it."""
    for arguments in (["127.0.0.1:1"], ["127.0.0.1:1", "0", "health"], ["127.0.0.1:1", "soon", "health"]):
        words = command_line(language, "ADDRESS", 1, "health", [])
        outcome = ended(start([*words[: words.index("ADDRESS")], *arguments]))
        assert (outcome.exit_code, outcome.out) == (2, "")
        assert outcome.err.startswith("usage: ")
        assert outcome.err.count("\n") == 1
