"""A child process that says lines: started, listened to with deadlines, stopped for certain."""

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from benchmarks.process_tree import Memory, cpu_s, memory_of, started_ticks, tree_of
from benchmarks.stamp import REPOSITORY

STOP_S = 30.0
"""For an orderly end, after which the process is killed."""

POLL_S = 0.05

KEPT_LINES = 20
"""Shown when the process fails."""


class ProcessError(RuntimeError):
    """A child process ended, or said nothing, when something was wanted of it."""


class LineProcess:
    """One child in the repository's root, whose output is read line by line as it comes.

    The settings of the surrounding shell are kept away from it: what is measured are defaults and flags that the report shows.
    """

    def __init__(self, command: Sequence[str], *, merge_stderr: bool, environment: Mapping[str, str] | None = None) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PARS_SIDECAR_", "PARS_HOOK_"))}
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=kept | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else None,
            encoding="utf-8",
            errors="replace",
        )
        self._name = " ".join(command[1:4])
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._last: deque[str] = deque(maxlen=KEPT_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def say(self, line: str) -> None:
        """Write one line to its input. Raises ProcessError when it is gone."""
        try:
            self._stdin.write(line + "\n")
            self._stdin.flush()
        except OSError as error:
            raise ProcessError(self._story("is gone")) from error

    def line(self, deadline_s: float) -> str:
        """Its next line. Raises ProcessError when it ends, or when none comes within `deadline_s` seconds."""
        try:
            line = self._lines.get(timeout=max(deadline_s, 0.001))
        except queue.Empty:
            raise ProcessError(self._story(f"said nothing for {deadline_s:.0f} s")) from None
        if line is None:
            raise ProcessError(self._story("ended early"))
        return line

    def line_like(self, pattern: str, deadline_s: float) -> re.Match[str]:
        """The first match among its next lines, within `deadline_s` seconds in all. Raises ProcessError."""
        give_up_s = time.monotonic() + deadline_s
        while True:
            if match := re.search(pattern, self.line(give_up_s - time.monotonic())):
                return match

    def check_running(self) -> None:
        """Raises ProcessError when it has ended."""
        if self.process.poll() is not None:
            self._reader.join(timeout=STOP_S)  # what it said last is why
            raise ProcessError(self._story("ended early"))

    def cpu_s(self) -> float:
        """CPU seconds that it and its children have used so far."""
        return cpu_s(tree_of(self.process.pid))

    def memory(self) -> Memory:
        """Of it and its children, now."""
        return memory_of(tree_of(self.process.pid))

    def close(self) -> None:
        """End it: its input is closed and SIGTERM sent; killed when that does not help. Harmless when it has ended.

        Its children are its own to end. Those that are still there when it has gone and had time to follow are killed.
        """
        children = [(pid, started_ticks(pid)) for pid in tree_of(self.process.pid)[1:]]
        with contextlib.suppress(OSError):
            self._stdin.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=STOP_S)
        _end([(pid, started) for pid, started in children if started is not None])
        self._reader.join(timeout=STOP_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def _stdin(self) -> IO[str]:
        assert self.process.stdin is not None
        return self.process.stdin

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._last.append(line.rstrip())
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def _story(self, what: str) -> str:
        said = "".join(f"\n  | {line}" for line in self._last)
        return f"`{self._name}` {what}" + (f"; it said:{said}" if said else "")


def _end(children: Sequence[tuple[int, int]]) -> None:
    """Wait for processes that nobody may wait for but their parent, and kill what has not ended by then."""
    give_up_s = time.monotonic() + STOP_S
    while left := [pid for pid, started in children if started_ticks(pid) == started]:
        if time.monotonic() > give_up_s:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(POLL_S)
