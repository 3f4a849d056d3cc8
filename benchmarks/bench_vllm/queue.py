"""How long vLLM's queue is while a run lasts: looked at about once a second, as an operator's Prometheus would."""

import contextlib
import threading
import time
import urllib.request
from types import TracebackType
from typing import Self

from benchmarks.bench_vllm.metrics import parse_metrics, total

PAUSE_S = 1.0

ANSWER_S = 10.0
"""A server that is too busy to say so within that time has no sample for it."""

WAITING, RUNNING = "vllm:num_requests_waiting", "vllm:num_requests_running"


class QueueSampler:
    """A thread that reads /metrics of the server at `url` from entering to leaving. A look that fails is counted, nothing more."""

    def __init__(self, url: str, pause_s: float = PAUSE_S) -> None:
        self._url, self._pause_s = f"{url}/metrics", pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.at_s: list[float] = []
        self.waiting: list[int] = []
        self.running: list[int] = []
        self.missed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def samples(self, since_s: float) -> dict[str, object]:
        """at_s, waiting, running: when each look was, and the requests then. missed: looks without an answer. since_s: what at_s counts
        from, as time.perf_counter of any process of this machine."""
        at_s = [at_s - since_s for at_s in self.at_s]
        return {"pause_s": self._pause_s, "at_s": at_s, "waiting": self.waiting, "running": self.running, "missed": self.missed}

    def _watch(self) -> None:
        while not self._stop.wait(self._pause_s):
            try:
                with contextlib.closing(urllib.request.urlopen(self._url, timeout=ANSWER_S)) as response:
                    lines = [
                        line for line in response.read().decode("utf-8").splitlines() if line.startswith((WAITING, RUNNING))
                    ]
            except OSError:
                self.missed += 1
                continue
            self.at_s.append(time.perf_counter())
            found = parse_metrics("\n".join(lines))
            self.waiting.append(int(total(found, WAITING)))
            self.running.append(int(total(found, RUNNING)))
