"""A peer's process: started, waited for until it answers, paused while others are measured, stopped with all its children."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.peers.flags import HOST
from benchmarks.peers.http import FAILURES, ask, session
from benchmarks.peers.registry import Peer, PeerError
from benchmarks.process import LineProcess, ProcessError
from benchmarks.process_tree import tree_of

START_S = 300.0
"""Ray Serve takes half a minute on a machine that is a little busy, most of it imports."""

POLL_S = 0.2

ASK_VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({each: m.version(each) for each in sys.argv[1:]}))"

ENVIRONMENT = {
    # As in the sidecar: the tokenizer's own thread pool would fight the model's threads.
    "TOKENIZERS_PARALLELISM": "false",
    # Everything is in the checkpoint's folder.
    "HF_HUB_OFFLINE": "1",
}


class ServedPeer:
    """One peer on a free port, in its own environment."""

    def __init__(self, peer: Peer, checkpoint: Path) -> None:
        self.peer = peer
        if not peer.python.is_file():
            raise PeerError(f"{peer.name} has no environment, {peer.python} is not there: make peers-env")
        self.versions = _versions(peer)
        port = _free_port()
        self.url = f"http://{HOST}:{port}"
        module = f"benchmarks.peers.{peer.name}"
        command = [str(peer.python), "-m", module, "--checkpoint", str(checkpoint.resolve()), "--port", str(port)]
        self.process = LineProcess(command, merge_stderr=True, environment=ENVIRONMENT)
        try:
            asyncio.run(self._wait_until_it_answers())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """It runs inside, and is paused behind: Ray Serve takes a tenth of a core while it has nothing to do."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """Stop it, paused or not."""
        self._signal(signal.SIGCONT)
        self.process.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.process.process.poll() is None:
            for pid in tree_of(self.process.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    async def _wait_until_it_answers(self) -> None:
        give_up_s = time.monotonic() + START_S
        async with session(START_S) as client:
            while True:
                try:
                    await ask(client, self.url, self.peer, ["Are you ready?"])
                    return
                except FAILURES as error:
                    self.process.check_running()
                    if time.monotonic() > give_up_s:
                        raise ProcessError(f"{self.peer.name} did not answer within {START_S:.0f} s: {error}") from error
                await asyncio.sleep(POLL_S)


def _versions(peer: Peer) -> dict[str, str]:
    asked = subprocess.run(
        [peer.python, "-c", ASK_VERSIONS, *peer.packages], capture_output=True, text=True, timeout=60, check=False
    )
    if asked.returncode:
        raise PeerError(f"{peer.name}: {asked.stderr.strip().splitlines()[-1]}; make peers-env")
    versions: dict[str, str] = json.loads(asked.stdout)
    return versions


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
