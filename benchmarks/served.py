"""A real `python -m sidecar` process, waited for until it serves."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.process import LineProcess
from vllm_client import ClientConfig, RankerClient

START_S = 300.0
"""A first CUDA start loads for minutes on a cold machine; a CPU start takes a second or two."""

ANSWER_MS = 10_000.0


class ServedSidecar:
    """A sidecar on a unix socket or a free TCP port. says: the settings it reports at start, by name."""

    def __init__(self, bundle: Path, address: str, provider: str, flags: Sequence[str]) -> None:
        arguments = ["--bundle", str(bundle.absolute()), "--address", address, "--provider", provider, *flags]
        self.process = LineProcess([sys.executable, "-m", "sidecar", *arguments], merge_stderr=True)
        try:
            ready = self.process.line_like(r"\branker ready (name=\S+ .*)", START_S).group(1)
            self.says = dict(word.split("=", 1) for word in shlex.split(ready))
            self.address = self.process.line_like(r"\bserving address=(\S+)", START_S).group(1)
            with RankerClient(ClientConfig(address=self.address, deadline_ms=ANSWER_MS)) as client:
                self.execution_provider = client.get_bundle().execution_provider
        except BaseException:
            self.process.close()
            raise

    @property
    def cost_model(self) -> dict[str, float]:
        """What it measured its model to cost at start, in ms. Wrong constants, on a busy machine, make for slow batches."""
        return {name: float(value) for name, value in self.says.items() if re.fullmatch(r"\w+_ms", name)}
