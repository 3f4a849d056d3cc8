"""The sidecar against its physical limit and other servers, in one run: `python -m benchmarks.bench_overhead --bundle … --out …`.

Contenders: the bare ONNX session, sidecars called through vllm_client, other servers of the same weights; each in a process of its
own, alive for the whole run, one at work at a time. Every round measures every case; ratios are taken within a round. On a GPU
(`--provider cuda`) without the other servers, which run on the CPU.
"""

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench_overhead.best_bundle import QUALITY, BestBundle, best_bundle
from benchmarks.bench_overhead.cases import (
    CPU_BATCHES,
    CUDA_BATCHES,
    OPEN_LOADS,
    PARTS,
    SMOKE_BATCHES,
    SMOKE_OPEN_LOADS,
    Case,
    PeerCase,
    ServedCase,
    cases_of_a_round,
)
from benchmarks.bench_overhead.ratios import limits, ours_failed, ratios_of
from benchmarks.bench_overhead.stage import Settings, Stage
from benchmarks.circumstances import circumstances
from benchmarks.flags import at_least_one, some_of, some_seconds
from benchmarks.leaving import signals_leave
from benchmarks.measurement import Measurement, Row, Spread
from benchmarks.peers.registry import Peer, PeerError, chosen
from benchmarks.process import ProcessError
from benchmarks.report import ratios_json, ratios_table, row_json, rows_table, write_json
from benchmarks.stamp import REPOSITORY, Stamp, make_stamp
from benchmarks.workload import Workload, from_file, made_up
from sidecar.cores import allotted_cores
from sidecar.errors import SidecarError
from vllm_client.prompt_files import PromptFileError

MODULE = "benchmarks.bench_overhead"

SECONDS, ROUNDS = 3.5, 5
"""Of a case in each round, and how often everything is measured: twenty minutes on two cores, with all peers."""

SMOKE_S, SMOKE_PROMPTS = 0.3, 64

PROMPTS = 512
"""Made up where no file is given: a pass takes a CPU core or two some seconds."""

CORES_PER_CALLER_PROCESS, MAX_CALLER_PROCESSES = 4, 8
"""One Python process makes some thousands of calls a second. With few cores it must not take more of them; where there are many,
the model is faster (or on a GPU) and needs more callers than one process can be."""

NOTES = (
    "Every figure is the median over the clean rounds, with the lowest and the highest round beside it.",
    "The callers run on the same cores as the server they call; caller CPU (s per 1,000 prompts) says how much they take away from it.",
    "The limit of throughput is the fastest batch size of the bare session, its prompts tokenised and sorted beforehand.",
    "`outside` is what a caller waited beyond the server's own tokenise, queue and infer: client, kernel, gRPC, event loop.",
    "Open loop: Poisson arrivals at a fraction of the limit in the first round; latency counts from when a call was due.",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Contenders:
    """Beside the bare session and the sidecars on `bundle`. best: with its folder. parts: of PARTS, those that are measured."""

    bundle: Path
    parts: tuple[str, ...]
    peers: Sequence[Peer] = ()
    checkpoint: Path | None = None
    best: tuple[Path, BestBundle] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. report: to be written; the rest of it is for people. has_failed: see main."""

    report: dict[str, Any]
    rows: list[Row]
    ratios: dict[str, Spread | None]
    has_failed: bool


def run(contenders: Contenders, workload: Workload, settings: Settings, stamp: Stamp) -> Outcome:
    """Measure everything. Raises ProcessError or PeerError when a contender cannot start, or dies before a round was whole."""
    best_folder, best = contenders.best or (None, None)
    names = [peer.name for peer in contenders.peers]
    with Stage.open(
        *(contenders.bundle, workload, settings),
        peers=contenders.peers,
        checkpoint=contenders.checkpoint,
        best_bundle=best_folder,
    ) as stage:
        about = stage.bare.about
        sizes = SMOKE_BATCHES if settings.smoke else CUDA_BATCHES if about["on_gpu"] else CPU_BATCHES
        cases = cases_of_a_round(
            settings.seconds,
            sizes,
            has_ngram=about["has_ngram"],
            parts=contenders.parts,
            peers=names,
            open_loads=SMOKE_OPEN_LOADS if settings.smoke else OPEN_LOADS,
        )
        measured, cut_short = whole_rounds(stage, cases, settings)
        cost_models = {over: sidecar.cost_model for over, sidecar in stage.sidecars.items()}
        workers = int(stage.sidecars["unix"].says["workers"])
        peers = {
            name: {"versions": peer.versions, "largest_score_difference": stage.peer_differences[name]}
            for name, peer in stage.peers.items()
        }
        limit_per_s = stage.limit_per_s
    rows = {case.name: Row(case.name, case.what, measured[case.name]) for case in cases}
    ratios = ratios_of(rows, names)
    if best is not None and best.tau_loss is not None:
        ratios["best_tau_loss"] = best.tau_loss
    report = {
        "benchmark": "overhead",
        "notes": [*NOTES, *([cut_short] if cut_short else []), *circumstances(stamp, smoke=settings.smoke)],
        "stamp": stamp,
        "settings": dataclasses.replace(settings, rounds=min(map(len, measured.values()), default=0)),
        "parts": contenders.parts,
        "execution_provider": about["execution_provider"],
        "bundle": {"bundle_id": about["bundle_id"], "model_name": about["model_name"]},
        "best_bundle": best,
        "bare_threads": about["threads"],
        "sidecar": {"workers": workers, "cost_models": cost_models},
        "peers": peers,
        "workload": {
            "source": workload.source,
            "sha256": workload.sha256,
            "prompts": len(workload.prompts),
            "prompt_tokens": about["tokens"],
        },
        "limits": {name: row.name for name, row in limits(rows).items()},
        "open_loop_limit_prompts_per_s": limit_per_s,
        **ratios_json(ratios),
        "rows": [row_json(row) for row in rows.values()],
    }
    return Outcome(report, list(rows.values()), ratios, bool(cut_short) or ours_failed(rows, ratios, names))


def whole_rounds(stage: Stage, cases: Sequence[Case], settings: Settings) -> tuple[dict[str, list[Measurement]], str | None]:
    """Every case, round by round; and why there are fewer rounds than asked for, when a contender died in a later one.

    Raises ProcessError when it died in the first. A round that is not whole is left out: ratios are taken within rounds.
    """
    measured: dict[str, list[Measurement]] = {case.name: [] for case in cases}
    began_s = time.monotonic()
    for number in range(settings.rounds):
        this_round: dict[str, Measurement] = {}
        try:
            # There and back, so that a machine that slowly heats up or fills up favours nobody.
            for case in cases if number % 2 == 0 else cases[::-1]:
                if isinstance(case, ServedCase | PeerCase) and case.load and stage.limit_per_s is None:
                    stage.limit_per_s = _limit_per_s(this_round)
                print(f"round {number + 1} of {settings.rounds}: {case.what}", file=sys.stderr, flush=True)
                this_round[case.name] = stage.measure(case, settings)
        except ProcessError as error:
            if number == 0:
                raise
            print(f"bench_overhead: {error}", file=sys.stderr)
            return measured, f"Cut short: {number} of {settings.rounds} rounds. {str(error).partition('; it said:')[0]}."
        for name, one in this_round.items():
            measured[name].append(one)
        print(f"round {number + 1} done after {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    return measured, None


def _limit_per_s(this_round: dict[str, Measurement]) -> float:
    """The bare session's best throughput in it."""
    limit = limits({name: Row(name, name, [one]) for name, one in this_round.items()}).get("all_sorted")
    spread = limit and limit.spread("prompts_per_s")
    if not spread:
        raise ProcessError("the bare session failed, so there is no limit to take a fraction of")
    return spread.median


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: measured; 1: a call of ours or of the bare session failed somewhere, a ratio of theirs is missing, or a contender
    died after the first round (the report is written, and says where), or nothing could start. What a peer fails at is a result, and so
    are calls that an open loop has no answer to.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    stamp = make_stamp(MODULE, given)
    smoke = flags.smoke
    settings = Settings(
        provider=flags.provider,
        seconds=flags.seconds or (SMOKE_S if smoke else SECONDS),
        rounds=flags.rounds or (1 if smoke else ROUNDS),
        caller_processes=flags.caller_processes
        or min(max(allotted_cores() // CORES_PER_CALLER_PROCESS, 1), MAX_CALLER_PROCESSES),
        sidecar_flags=tuple(shlex.split(flags.sidecar_flags)),
        smoke=smoke,
    )
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        contenders = _contenders(flags)
        workload = (
            from_file(flags.prompts, flags.seed) if flags.prompts else made_up(SMOKE_PROMPTS if smoke else PROMPTS, flags.seed)
        )
        outcome = run(contenders, workload, settings, stamp)
    except (ProcessError, PeerError, PromptFileError, SidecarError) as error:
        print(f"bench_overhead: {error}", file=sys.stderr)
        return 1
    report = outcome.report
    write_json(flags.out, report)
    print("\n".join([*rows_table(outcome.rows), "", *ratios_table(outcome.ratios), "", *report["notes"]]))
    print(f"{report['execution_provider']}, {stamp.machine.cpu_model}, {stamp.machine.allotted_cores} cores → {flags.out}")
    return 1 if outcome.has_failed else 0


def _contenders(flags: argparse.Namespace) -> Contenders:
    """From the command line; parts that lack their contenders are left out. Raises PeerError, BundleError."""
    peers = chosen(flags.peers) if flags.peers != "none" and "peers" in flags.parts else []
    has_best = flags.best_bundle is not None and "best" in flags.parts
    parts = [part for part in flags.parts if (part != "peers" or peers) and (part != "best" or has_best)]
    best = (flags.best_bundle, best_bundle(flags.best_bundle, REPOSITORY / QUALITY)) if has_best else None
    return Contenders(flags.bundle, tuple(parts), peers, flags.checkpoint, best)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle, in fp32 where there are peers")
    parser.add_argument("--out", type=Path, required=True, help="JSON report to write")
    parser.add_argument("--peers", default="none", help="other servers: all, none or comma-separated names (default none)")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=REPOSITORY / "default_ranker",
        help="what the peers serve (default: the shipped ranker)",
    )
    parser.add_argument("--best-bundle", type=Path, help="the same ranker's fastest bundle, measured beside the other")
    parser.add_argument(
        "--parts", type=_parts, default=PARTS, help=f"some of {','.join(PARTS)}, separated by commas (default all)"
    )
    parser.add_argument(
        "--seconds", type=some_seconds, help=f"of a case in each round; some get a part of it (default {SECONDS:g})"
    )
    parser.add_argument("--rounds", type=at_least_one, help=f"how often every case is measured (default {ROUNDS})")
    parser.add_argument(
        "--provider", choices=("auto", "cpu", "cuda"), default="auto", help="of ours and the bare session (default auto)"
    )
    parser.add_argument("--prompts", type=Path, help="one per line, or .jsonl with `prompt`; default: made up from the seed")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts and their order (default 0)")
    parser.add_argument("--caller-processes", type=at_least_one, help="processes the callers are spread over; default by cores")
    parser.add_argument("--sidecar-flags", default="", help="further flags of `python -m sidecar`, as one argument")
    parser.add_argument("--smoke", action="store_true", help="a few seconds in all: does it work? Measures nothing")
    return parser


def _parts(text: str) -> tuple[str, ...]:
    asked = some_of(PARTS)(text)
    if "open" in asked and "limit" not in asked:
        raise argparse.ArgumentTypeError("open is at fractions of the limit, so it needs that part too")
    return tuple(part for part in PARTS if part in asked)


if __name__ == "__main__":
    with signals_leave():
        sys.exit(main())
