"""What a benchmark on a real vLLM was asked for, and where it runs."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kept_runs import KeptRuns
from benchmarks.replay import Replay, from_records, from_seed
from benchmarks.stamp import Stamp
from benchmarks.tiny_llama import make_model
from benchmarks.vllm_arms import Arm, LoadSettings
from benchmarks.vllm_pacing import plugin_folder
from benchmarks.vllm_process import VllmInstallation
from sidecar.bundle import open_bundle


@dataclass(frozen=True, slots=True)
class Bench:
    """records: None for made-up requests. starts: of engines, for each arm. rounds: of requests at low load, in each start there."""

    records: Path | None
    bundle: Path
    arms: tuple[Arm, ...]
    starts: int
    latency_starts: int
    rounds: int
    seed: int
    load: LoadSettings
    smoke: bool

    def replay(self, repetition: int) -> Replay:
        """The requests of one repetition; each has others. Raises RecordsError."""
        seed = self.seed + repetition
        if self.records is None:
            return from_seed(self.load.requests, seed)
        return from_records(self.records, self.load.requests, seed)


@dataclass(frozen=True, slots=True)
class Site:
    """vLLM with padded steps and at its own pace, where finished runs are kept, and what all of them depend on."""

    paced: VllmInstallation
    unpaced: VllmInstallation
    kept: KeptRuns
    common: dict[str, Any]


@contextlib.contextmanager
def site_of(bench: Bench, vllm_bin: Path, runs: Path, stamp: Stamp) -> Iterator[Site]:
    """Model and plugin are made for as long as it lasts. Raises ProcessError or a SidecarError when something is not there."""
    with tempfile.TemporaryDirectory(prefix="pars-bench-") as name:
        folder = Path(name)
        paced = VllmInstallation(
            vllm_bin.absolute(), make_model(folder / "model"), plugin_folder(folder / "plugin"), bench.load.step_ms
        )
        # A run of another commit, vLLM or bundle is not the same run.
        common = {
            "commit": stamp.commit,
            "vllm": paced.versions(),
            "bundle_id": open_bundle(bench.bundle).bundle_id,
            "smoke": bench.smoke,
        }
        yield Site(paced, dataclasses.replace(paced, step_ms=0.0), KeptRuns(runs), common)
