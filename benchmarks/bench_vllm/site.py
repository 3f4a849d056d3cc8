"""What a benchmark on a real vLLM was asked for, where it runs, and what its runs depend on."""

import contextlib
import dataclasses
import datetime
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_vllm.kept_runs import KeptRuns
from benchmarks.bench_vllm.pacing import plugin_folder
from benchmarks.bench_vllm.process import VllmInstallation
from benchmarks.bench_vllm.run import LoadSettings
from benchmarks.bench_vllm.sources import driver_sources, sidecar_sources
from benchmarks.bench_vllm.tiny_llama import make_model
from benchmarks.replay import Replay, from_records, from_seed
from benchmarks.stamp import Stamp
from pars.v1 import bundle_pb2
from sidecar.bundle import open_bundle


@dataclass(frozen=True, slots=True)
class Bench:
    """records: None for made-up requests. starts: of engines, for each arm and load. rounds: of requests one at a time, in each start
    there. requests: of a run, but at the loads that requests_at names."""

    records: Path | None
    bundle: Path
    arms: tuple[str, ...]
    loads: tuple[str, ...]
    starts: int
    requests: int
    requests_at: Mapping[str, int]
    latency_starts: int
    rounds: int
    seed: int
    settings: LoadSettings
    smoke: bool

    def replay(self, load: str, repetition: int) -> Replay:
        """The requests of one repetition, the same at all loads with as many of them. Raises RecordsError."""
        return self._replay(self.requests_at.get(load, self.requests), self.seed_of(repetition))

    def common_replay(self) -> Replay:
        """For what is measured once for all loads. Raises RecordsError."""
        return self._replay(self.requests, self.seed)

    def _replay(self, count: int, seed: int) -> Replay:
        if self.records is None:
            return from_seed(count, seed)
        return from_records(self.records, count, seed)

    def seed_of(self, repetition: int) -> int:
        """Of requests and of their times; repetitions count from 1."""
        return self.seed + repetition - 1


@dataclass(frozen=True, slots=True)
class Site:
    """vLLM with padded steps and at its own pace, where finished runs are kept, what all of them depend on, and those that ask the
    sidecar besides. scoring: see `what_scores`."""

    paced: VllmInstallation
    unpaced: VllmInstallation
    kept: KeptRuns
    stamp: Stamp
    versions: dict[str, str]
    model_name: str
    bundle_id: str
    scoring: str
    common: dict[str, Any]
    asking: dict[str, Any]

    def origin(self) -> dict[str, Any]:
        """Of a run that begins now: it may be reported days later, from another commit."""
        machine = self.stamp.machine
        return {
            "commit": self.stamp.commit,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "bundle_id": self.bundle_id,
            "machine": {"cpu_model": machine.cpu_model, "allotted_cores": machine.allotted_cores},
            "load_average_1_min": os.getloadavg()[0],
        }


@contextlib.contextmanager
def site_of(bench: Bench, vllm_bin: Path, kept: KeptRuns, stamp: Stamp) -> Iterator[Site]:
    """Model and plugin are made for as long as it lasts; no engine is started. Raises ProcessError or a SidecarError when something is
    not there."""
    with tempfile.TemporaryDirectory(prefix="pars-bench-") as name:
        folder = Path(name)
        paced = VllmInstallation(
            vllm_bin.absolute(), make_model(folder / "model"), plugin_folder(folder / "plugin"), bench.settings.step_ms
        )
        versions, manifest = paced.versions(), open_bundle(bench.bundle).manifest
        scoring = what_scores(manifest)
        yield Site(
            paced=paced,
            unpaced=dataclasses.replace(paced, step_ms=0.0),
            kept=kept,
            stamp=stamp,
            versions=versions,
            model_name=manifest.model_name,
            bundle_id=manifest.bundle_id,
            scoring=scoring,
            common={"vllm": versions, "drivers": driver_sources()},
            asking={"sidecar": sidecar_sources(), "bundle": scoring},
        )


def what_scores(manifest: bundle_pb2.BundleManifest) -> str:
    """A digest of what makes a bundle's scores what they are. Not the bundle id: that covers what the exporting machine measured as well,
    whose last digits are of its CPU."""
    scoring = bundle_pb2.BundleManifest()
    scoring.CopyFrom(manifest)
    for measured in ("bundle_id", "golden_prompts", "golden_tolerance", "parity"):
        scoring.ClearField(measured)
    return hashlib.sha256(scoring.SerializeToString(deterministic=True)).hexdigest()
