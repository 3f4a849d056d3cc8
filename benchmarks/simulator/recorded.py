"""Real runs of benchmarks.bench_vllm, rebuilt so that the simulator can serve the same requests at the same times."""

import argparse
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_vllm.arms import Arm, arm_named
from benchmarks.bench_vllm.kept_runs import REPLACED
from benchmarks.bench_vllm.oracle_ranker import quantiles_of, shuffled
from benchmarks.bench_vllm.plan import Planned
from benchmarks.bench_vllm.rankers import served_ranker
from benchmarks.bench_vllm.requests import KEPT, estimates_of
from benchmarks.bench_vllm.site import what_scores
from benchmarks.replay import RecordsError, Replay, from_records, from_seed
from benchmarks.simulator.arrivals import as_bench_serve
from benchmarks.simulator.engine_settings import EngineSettings
from benchmarks.simulator.hook import Hook
from benchmarks.simulator.request import Estimate, Request
from benchmarks.simulator.simulate import Setup
from benchmarks.simulator.step_model import StepModel
from sidecar.bundle import open_bundle
from vllm_client.hook.host import Host
from vllm_client.priority import DEFAULT_MAX_WINDOW_MS, DEFAULT_WINDOW_MS, PolicySettings

CHARS_PER_TOKEN = 2
"""Of the tiny tokenizer, about: for runs of which no prompt tokens were kept."""

MOST_UNSCORED = 0.05
"""Share of the requests whose score did not come in time. Here everybody gets one who is asked about."""

_LOW_LOAD_VARIANT = {"sidecar": "encoder", "oracle": "asked", "shuffled": "asked"}


class LeftOutError(ValueError):
    """A run that cannot be rebuilt; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class RealRun:
    """One run. setup: all but how long a step takes and what lies between client and engine. kept: of each request, see
    benchmarks.bench_vllm.requests; None for a run from before they were kept."""

    name: str
    report: str
    load: str
    repetition: int
    setup: Setup
    requests: tuple[Request, ...]
    estimates: tuple[Estimate, ...] | None
    figures: Mapping[str, Any]
    kept: Mapping[str, Sequence[float]] | None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the parts of a run are. records: what was replayed, None for made-up requests. bundle: of the ranker, for runs that did
    not keep what it said. runs: folders of kept runs."""

    report: Path
    records: Path | None
    bundle: Path | None
    runs: Sequence[Path]


def real_runs(sources: Sources) -> tuple[list[RealRun], dict[str, str]]:
    """The report's runs under load, and by name why a run is missing among them. Raises RecordsError, OSError.

    A report has all tries of a run: one that was not clean is not missed where another was.
    """
    report = json.loads(sources.report.read_text(encoding="utf-8"))
    found: dict[str, RealRun] = {}
    left_out = {}
    for run in report["runs"]:
        name = f"{sources.report.stem} {_name(run)}"
        try:
            found[name] = _real_run(name, run, report, sources)
        except LeftOutError as error:
            left_out[name] = str(error)
    return list(found.values()), {name: why for name, why in left_out.items() if name not in found}


def _name(run: Mapping[str, Any]) -> str:
    return Planned(run["arm"], run["load"], run["repetition"]).name


def _real_run(name: str, run: Mapping[str, Any], report: Mapping[str, Any], sources: Sources) -> RealRun:
    if run["not_clean"]:
        raise LeftOutError(run["not_clean"])
    if (unscored := _unscored_share(run.get("hook_outcomes", {}))) > MOST_UNSCORED:
        raise LeftOutError(f"{unscored:.0%} of its requests were asked about and got no score, which nothing here simulates")
    workload, settings = report["workloads"][f"{run['load']}-{run['repetition']}"], report["settings"]
    arm = arm_named(run["arm"])
    replay = _replay(workload, sources.records)
    flags = _bench_flags(workload["vllm_bench_serve"])
    kept = _kept(run, sources.runs)
    tokens = kept["prompt_tokens"] if kept else [len(each.prompt) // CHARS_PER_TOKEN + 1 for each in replay.requests]
    requests = tuple(
        Request(arrival_ms, max(int(prompt_tokens), 1), each.output_tokens)
        for arrival_ms, prompt_tokens, each in zip(
            _arrivals_ms(len(replay.requests), flags), tokens, replay.requests, strict=True
        )
    )
    max_num_seqs = settings["max_num_seqs"]
    hook = Hook(
        policy=run["hook"].get("policy", "ageing"),
        settings=PolicySettings(
            window_ms=int(run["hook"].get("window_ms", DEFAULT_WINDOW_MS)),
            max_window_ms=int(run["hook"].get("max_window_ms", DEFAULT_MAX_WINDOW_MS)),
        ),
        gate_in_flight=Host(max_num_seqs=max_num_seqs).gate_in_flight(-1),
        ask_ms=_ask_ms(run, arm, report),
    )
    return RealRun(
        name=name,
        report=sources.report.stem,
        load=run["load"],
        repetition=run["repetition"],
        # The tiny model's cache holds a million tokens: no run came near it.
        setup=Setup(EngineSettings(max_num_seqs), StepModel(settings["step_ms"] or 1.0), hook=hook),
        requests=requests,
        estimates=_estimates(arm, replay, flags.seed, kept, report.get("scoring", ""), sources.bundle),
        figures=run["figures"],
        kept=kept,
    )


def _replay(workload: Mapping[str, Any], records: Path | None) -> Replay:
    seed = int(workload["source"].rpartition(" ")[2])
    count = workload["requests"]
    replay = from_seed(count, seed) if records is None else from_records(records, count, seed)
    if replay.sha256 != workload["sha256"]:
        raise RecordsError(f"{records or 'the built-in generator'}: not what was replayed, which was {workload['source']}")
    return replay


def _unscored_share(outcomes: Mapping[str, int]) -> float:
    wanted = sum(outcomes.values()) - outcomes.get("equal_policy", 0) - outcomes.get("gated", 0)
    return 1 - outcomes.get("scored", 0) / wanted if wanted else 0.0


def _arrivals_ms(count: int, flags: argparse.Namespace) -> list[float]:
    """All at once for an infinite rate."""
    if math.isinf(flags.request_rate):
        return [0.0] * count
    return as_bench_serve(count, flags.request_rate, flags.seed)


def _bench_flags(line: str) -> argparse.Namespace:
    """Of its command line, in full: figures in a report are rounded."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--request-rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_known_args(shlex.split(line))[0]


def _kept(run: Mapping[str, Any], folders: Sequence[Path]) -> Mapping[str, Sequence[float]] | None:
    """Of the very try that is in the report, known by when it began: under its name, or among the replaced ones when the run has been
    made again since."""
    for folder in folders:
        for path in (folder / f"{_name(run)}.json", *sorted((folder / REPLACED).glob(f"{_name(run)}.*.json"))):
            # A kept run from before runs had tries is not one of a report.
            for one_try in json.loads(path.read_text(encoding="utf-8")).get("tries", ()) if path.exists() else ():
                if one_try["date"] == run["date"] and KEPT in one_try:
                    kept: Mapping[str, Sequence[float]] = one_try[KEPT]
                    return kept
    return None


def _ask_ms(run: Mapping[str, Any], arm: Arm, report: Mapping[str, Any]) -> float:
    """How long the hook held a request: as counted in the run, else as measured at low load."""
    if (counted := run["figures"].get("hook_ask_mean_ms")) is not None:
        return float(counted)
    added = report.get("low_load", {}).get("summary", {}).get("added_ms", {}).get(_LOW_LOAD_VARIANT.get(arm.ranker, ""))
    return max(float(added[0]), 0.0) if added else 0.0


def _estimates(
    arm: Arm,
    replay: Replay,
    seed: int,
    kept: Mapping[str, Sequence[float]] | None,
    scoring: str,
    bundle: Path | None,
) -> tuple[Estimate, ...] | None:
    if arm.ranker == "none":
        return None
    if kept and "quantile" in kept:
        said = kept
    elif arm.ranker == "sidecar":
        if bundle is None or what_scores(open_bundle(bundle).manifest) != scoring:
            raise LeftOutError("what its ranker said was not kept, and a bundle that says the same is not here to ask it again")
        with served_ranker(arm.ranker, bundle, replay, seed) as address:
            assert address is not None, "bug in ours: a sidecar has an address"
            said = estimates_of(address, [each.prompt for each in replay.requests], arm.hook.get("tier", "any"))
    else:
        known = {each.prompt: each.output_tokens for each in replay.requests}
        if arm.ranker == "prompt_length":
            known = {prompt: len(prompt) for prompt in known}
        lengths = list((shuffled(known, seed) if arm.ranker == "shuffled" else known).values())
        said = {"quantile": quantiles_of(lengths), "expected_tokens": lengths, "expected_tokens_p90": lengths}
    columns = (said["quantile"], said["expected_tokens"], said["expected_tokens_p90"])
    return tuple(Estimate(*row) for row in zip(*columns, strict=True))
