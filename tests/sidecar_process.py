"""A real `python -m sidecar` process, and callers that keep it busy."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from pars.v1 import ranker_pb2, ranker_pb2_grpc

WAIT_S = 10.0
"""Deadline of every call and wait here. Reached only when something is broken."""

START_S = 60.0
"""Starting takes half a second; the bound is for a busy machine."""

REPOSITORY = Path(__file__).parents[1]


class Sidecar:
    """One `python -m sidecar`. Its log lines are read as they come, so that every wait is for a line, with a deadline."""

    def __init__(self, bundle: Path, *arguments: str, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PARS_SIDECAR_")}
        command = [sys.executable, "-W", "error", "-m", "sidecar", "--bundle", str(bundle), *arguments]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=kept | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.address = ""
        """Known once it serves."""
        self.lines: list[str] = []
        self._new: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            self._new.put(line)

    def wait_for(self, pattern: str) -> re.Match[str]:
        give_up = time.monotonic() + START_S
        while True:
            try:
                line = self._new.get(timeout=max(give_up - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"no line matches {pattern!r} in {self.lines}") from None
            if match := re.search(pattern, line):
                return match

    def serving(self, provider: str = "CPUExecutionProvider") -> str:
        """Wait until it serves; its address."""
        self.wait_for(rf"ranker ready name=default bundle=[0-9a-f]{{16}} provider={provider} workers=\d+")
        self.address = self.wait_for(r"serving address=(\S+)").group(1)
        return self.address

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        code = self.process.wait(timeout=START_S)
        self._reader.join(timeout=START_S)
        return code

    def close(self) -> None:
        self.process.kill()
        self.exit_code()
        assert self.process.stdout is not None
        self.process.stdout.close()


StartSidecar = Callable[..., Sidecar]


class Callers:
    """A thread that scores without a pause while inside. bundle_ids: those that answered, in order, repeats left out."""

    def __init__(self, stub: ranker_pb2_grpc.RankerServiceStub) -> None:
        self.bundle_ids: list[str] = []
        self.failed: list[str] = []
        self._stub = stub
        self._done = threading.Event()
        self._answered = threading.Condition()
        self._thread = threading.Thread(target=self._score)

    def __enter__(self) -> "Callers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(WAIT_S)

    def wait_for(self, bundle_id: str) -> None:
        """Until the newest answer is this bundle's."""
        with self._answered:
            assert self._answered.wait_for(lambda: self.bundle_ids[-1:] == [bundle_id], WAIT_S), self.bundle_ids

    def _score(self) -> None:
        request = ranker_pb2.ScoreRequest(prompts=["a", "long"], tier=ranker_pb2.TIER_ENCODER)
        while not self._done.is_set():
            try:
                bundle_id = self._stub.Score(request, timeout=WAIT_S).bundle_id
            except grpc.RpcError as error:
                self.failed.append(str(error))
                return
            with self._answered:
                if self.bundle_ids[-1:] != [bundle_id]:
                    self.bundle_ids.append(bundle_id)
                self._answered.notify_all()
