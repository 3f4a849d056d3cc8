"""Half an hour of everything at once: `python -m benchmarks.soak --bundle … --out …`. Exit code 0 only when every promise was kept.

Two real sidecars, one on TCP and one on a unix socket, each with two rankers. Callers of every kind: short and hopeless deadlines,
gone in the middle, killed, wrong, in bursts far above what two cores can do. Meanwhile the bundles are swapped, now and then for a
broken one. At the end SIGTERM, under load.

Promises: every call ends in an answer or a status; every answer is the right one, by a bundle that may answer, and no status tells
of a fault; broken bundles are refused; memory, file descriptors and threads do not grow; a stop under load answers everybody.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.circumstances import circumstances
from benchmarks.leaving import signals_leave
from benchmarks.process import LineProcess, ProcessError
from benchmarks.report import aligned, write_json
from benchmarks.soak.bundles import broken_bundles, read_bundle_id, second_bundle
from benchmarks.soak.calls import LAST_S, LEARN_S, MAX_WAIT_S, SLACK_S
from benchmarks.soak.mix import SECOND_RANKER
from benchmarks.soak.sidecar import DEFAULT, SoakedSidecar
from benchmarks.soak.tally import KEPT_FAULTS, Tally, total_of
from benchmarks.soak.verdict import JUDGED_MINUTES, broken_promises, growth, per_minute
from benchmarks.stamp import make_stamp
from vllm_client import RankerClientError

MODULE = "benchmarks.soak"

MINUTES = 30.0

CALLS_PER_S = 20.0
"""To each sidecar, outside bursts: some 200 prompts/s in all, half of what two cores of today score. A burst is ten times that."""

SAMPLE_EVERY_S, SWAP_EVERY_S, KILL_EVERY_S, SAY_EVERY_S = 10.0, 20.0, 30.0, 60.0
"""Shorter in a run that would otherwise see too few of them, see `scaled`."""

BROKEN_EVERY = 4
"""Every so many swaps leads to a broken bundle."""

STOP_LOAD_S = 1.0
"""Load between telling the callers and SIGTERM."""

REPLY_S = 180.0
"""For a caller process to answer us. Minutes: that a machine is far too busy is no fault of the sidecar's and must not end the run."""

NOTES = (
    f"A call counts as unanswered when neither a reply nor a status has come {SLACK_S:g} s after its deadline; calls without one have "
    f"the server's {MAX_WAIT_S:g} s. The slack is for stalls of the machine. `by_deadline` has the scoring calls and stream "
    "items that nobody cancelled: hopeless deadlines are 1 to 10 ms, tight ones 20 to 250 ms, generous ones 1 to 10 s. `late` counts what "
    "came more than 50 ms after its deadline as the caller saw it, on cores that it shares with the sidecars. That is stream items "
    "alone: at the deadline of a unary call the caller's own gRPC ends it with DEADLINE_EXCEEDED.",
    "wrong: a status that the call cannot have deserved (INTERNAL, UNKNOWN, UNAVAILABLE before the stop, OK for a wrong request …), a "
    "score that is not the prompt's, a tier other than the one asked for, a bundle id that is neither of the two, or expected tokens "
    "that are not those of the bundle named.",
    "growth: mean resident memory from 1/6 to 7/30 of the run and in its last 1/15; file descriptors and threads are the most seen there. "
    f"Judged from {JUDGED_MINUTES:g} minutes on. Samples are taken between swaps, never during one.",
    "stream items that a stream's own end answered are counted as `stream <status>`.",
)
UNJUDGED_NOTE = "Too short for growth to be judged."


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Of a run, for the report. calls_per_s: to each sidecar, outside bursts."""

    provider: str
    minutes: float
    calls_per_s: float
    seed: int


@dataclasses.dataclass
class Site:
    """What one sidecar's part of the run consists of."""

    sidecar: SoakedSidecar
    callers: LineProcess
    tally: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {**Tally().to_json(), "cpu_s": 0.0})
    exit_code: int | None = None
    stop_s: float = 0.0

    def ask(self, word: str, within_s: float = REPLY_S) -> None:
        """Say a word to the callers; their tally is their answer."""
        self.callers.say(word)
        self.tally = json.loads(self.callers.line(within_s))


class Soak:
    """The whole run, step by step."""

    def __init__(
        self, sites: Sequence[Site], bundles: tuple[Path, Path], broken: Mapping[str, Path], settings: Settings
    ) -> None:
        self._sites = sites
        self._bundle_ids = {bundle: read_bundle_id(bundle) for bundle in bundles}
        self._broken = broken
        self._settings = settings
        self.killed_callers = 0
        self.ended_early: str | None = None

    @classmethod
    @contextlib.contextmanager
    def open(cls, bundle: Path, settings: Settings) -> Iterator["Soak"]:
        """Start sidecars and callers. Raises ProcessError."""
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pars-soak-")))
            bundles = (bundle.resolve(), second_bundle(bundle, folder / "second"))
            # All of them before the first call: a sidecar measures its model's cost at start and wants the machine to itself.
            sidecars = []
            for over in ("tcp", "unix"):
                sidecars.append(SoakedSidecar(folder / over, over, bundles, settings.provider))
                stack.callback(sidecars[-1].close)
            sites = []
            for number, sidecar in enumerate(sidecars):
                command = [sys.executable, "-m", "benchmarks.soak.calls", "--address", sidecar.served.address]
                command += ["--seed", str(settings.seed + number), "--calls-per-s", str(settings.calls_per_s)]
                command += [word for each in bundles for word in ("--bundle", str(each))]
                callers = stack.enter_context(LineProcess(command, merge_stderr=False))
                callers.line(LEARN_S + REPLY_S)
                sites.append(Site(sidecar, callers))
            yield cls(sites, bundles, broken_bundles(bundle, folder / "broken"), settings)

    def run(self) -> None:
        """The load, with everything that happens meanwhile, and then the stop under load. Whoever dies or hangs ends it early, which
        is a finding: it is kept, with what the callers have counted so far.
        """
        try:
            self._load()
            self._stop()
        except ProcessError as error:
            self.ended_early = str(error)
            for site in self._sites:
                with contextlib.suppress(ProcessError):
                    site.ask("tally")

    def report(self) -> list[dict[str, Any]]:
        """Each sidecar's part."""
        return [self._site_report(site) for site in self._sites]

    def _load(self) -> None:
        seconds, begin_s = self._settings.minutes * 60, time.monotonic()
        due = [
            _Due(self._sample, scaled(SAMPLE_EVERY_S, seconds, 20)),
            _Due(self._swaps().__next__, scaled(SWAP_EVERY_S, seconds, 6)),
            _Due(self._kill_a_caller, scaled(KILL_EVERY_S, seconds, 1)),
            _Due(self._say, scaled(SAY_EVERY_S, seconds, 2)),
        ]
        self._begin_s = begin_s
        while (now_s := time.monotonic() - begin_s) < seconds:
            for each in due:
                each.do_if_due(now_s)
            time.sleep(min(0.1, seconds / 100))
        self._sample()

    def _site_report(self, site: Site) -> dict[str, Any]:
        sidecar = site.sidecar
        return {
            "over": sidecar.over,
            "callers": site.tally,
            "reloads": dict(sidecar.reloads),
            "longest_reload_s": sidecar.longest_reload_s,
            "reload_faults": sidecar.faults,
            "growth": growth(sidecar.samples, self._settings.minutes * 60),
            "per_minute": per_minute(sidecar.samples),
            "log_lines": sidecar.log.levels(),
            "unexpected_log_records": len(unexpected := sidecar.log.unexpected()),
            "unexpected_log": unexpected[:KEPT_FAULTS],
            "exit_code": site.exit_code,
            "stop_s": site.stop_s,
            "cost_models_ms": sidecar.cost_models(),
        }

    def _sample(self) -> None:
        for site in self._sites:
            site.sidecar.sample(time.monotonic() - self._begin_s)

    def _swaps(self) -> Iterator[None]:
        """One swap each time it is asked: the sidecars in turn, valid ones mostly, broken ones in turn."""
        broken = itertools.cycle(itertools.product(self._broken.values(), (DEFAULT, SECOND_RANKER)))
        for number, site in enumerate(itertools.cycle(self._sites)):
            if number // len(self._sites) % BROKEN_EVERY == 1:
                folder, ranker = next(broken)
                site.sidecar.swap_to_broken(ranker, folder, self._bundle_ids)
            else:
                site.sidecar.swap(self._bundle_ids)
            yield

    def _kill_a_caller(self) -> None:
        """A caller that dies with calls and streams open, and says goodbye to nobody."""
        address = self._sites[self.killed_callers % len(self._sites)].sidecar.served.address
        try:
            with LineProcess([sys.executable, "-m", "benchmarks.soak.doomed", address], merge_stderr=False) as doomed:
                doomed.line(REPLY_S)
                doomed.process.kill()
        except ProcessError as error:
            # No reason to end a run of half an hour; `no caller was killed` is.
            print(f"soak: {error}", file=sys.stderr)
        else:
            self.killed_callers += 1

    def _say(self) -> None:
        for site in self._sites:
            site.ask("tally")
            tally, sample = site.tally, site.sidecar.samples[-1]
            print(
                f"{sample.at_s / 60:5.1f} min {site.sidecar.over:>4}: {total_of(tally):,} calls, {tally['unanswered']} unanswered, "
                f"{tally['wrong']} wrong, {sample.rss_mib:.0f} MiB, {sample.fds} fds, {sample.threads} threads, "
                f"reloads {dict(site.sidecar.reloads)}",
                file=sys.stderr,
                flush=True,
            )

    def _stop(self) -> None:
        for site in self._sites:
            site.ask("stopping")
        time.sleep(STOP_LOAD_S)
        for site in self._sites:
            began_s = time.monotonic()
            site.exit_code = site.sidecar.stop()
            site.stop_s = time.monotonic() - began_s
        for site in self._sites:
            site.ask("end", LAST_S + REPLY_S)


class _Due:
    """Something that happens again and again."""

    def __init__(self, do: Any, every_s: float) -> None:
        self._do = do
        self._every_s = every_s
        self._next_s = every_s

    def do_if_due(self, now_s: float) -> None:
        if now_s >= self._next_s:
            self._do()
            # From when it was due; what the machine made us miss is not made up for.
            self._next_s = max(self._next_s + self._every_s, now_s)


def scaled(every_s: float, seconds: float, times: int) -> float:
    """The interval, or a shorter one so that something happens at least so many times."""
    return min(every_s, seconds / (times + 1))


def table(report: Mapping[str, Any]) -> list[str]:
    """Lines for people: each sidecar's calls by kind and status, and what it held."""
    lines = []
    for sidecar in report["sidecars"]:
        tally, grown = sidecar["callers"], sidecar["growth"]
        lines += [
            "",
            *_counts_table(sidecar["over"], tally["calls"]),
            "",
            *_counts_table("by deadline", tally["by_deadline"]),
            "",
        ]
        lines.append(
            f"{total_of(tally):,} calls, {tally['unanswered']} unanswered, {tally['wrong']} wrong; reloads {sidecar['reloads']}, "
            f"the longest {sidecar['longest_reload_s']:.1f} s; exit code {sidecar['exit_code']} after {sidecar['stop_s']:.1f} s"
        )
        lines.append(
            f"the latest {tally['worst_late_s']:.2f} s after its deadline; the callers' own process was late by up to "
            f"{tally['worst_own_lag_s']:.2f} s and used {tally['cpu_s']:.0f} s of CPU"
        )
        if grown is not None:
            before, after = grown["rss_mib"]
            lines.append(
                f"memory {before:.0f} → {after:.0f} MiB ({grown['rss_ratio']:.3f}), file descriptors {grown['fds']}, "
                f"threads {grown['threads']}"
            )
        lines.append(f"[fixed, per token] of the model in ms, at start and after each swap: {sidecar['cost_models_ms']}")
        lines += [f"  fault: {fault}" for fault in (*tally["faults"], *sidecar["reload_faults"], *sidecar["unexpected_log"])]
    return lines


def _counts_table(title: str, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    statuses = sorted({status for row in counts.values() for status in row})
    return aligned(
        (title, *statuses), [(what, *(str(row.get(status, "")) for status in statuses)) for what, row in counts.items()]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: every promise was kept; 1: one was broken, or something died (the report says which), or could not start."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    stamp = make_stamp(MODULE, given)
    settings = Settings(flags.provider, flags.minutes, flags.calls_per_s, flags.seed)
    try:
        with Soak.open(flags.bundle, settings) as soak:
            soak.run()
            sidecars = soak.report()
    except (ProcessError, RankerClientError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    broken = [f"the run ended early: {soak.ended_early}"] if soak.ended_early else []
    broken += [fault for sidecar in sidecars for fault in broken_promises(sidecar, settings.minutes)]
    broken += [] if soak.killed_callers else ["no caller was killed: the run did not do what it is for"]
    report: dict[str, Any] = {
        "benchmark": "soak",
        "notes": [
            *NOTES,
            *([UNJUDGED_NOTE] if settings.minutes < JUDGED_MINUTES else []),
            *circumstances(stamp, smoke=False),
        ],
        "stamp": stamp,
        "settings": settings,
        "killed_callers": soak.killed_callers,
        "broken_promises": broken,
        "sidecars": sidecars,
    }
    write_json(flags.out, report)
    print("\n".join([*table(report), "", *report["notes"]]))
    verdict = [f"BROKEN {fault}" for fault in broken] or ["every promise was kept"]
    print("\n".join([*verdict, f"→ {flags.out}"]))
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--out", type=Path, required=True, help="JSON report to write")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"of load (default {MINUTES:g})")
    parser.add_argument("--calls-per-s", type=float, default=CALLS_PER_S, help=f"to each sidecar (default {CALLS_PER_S:g})")
    parser.add_argument("--provider", choices=("auto", "cpu", "cuda"), default="auto", help="of the sidecars (default auto)")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and calls (default 0)")
    return parser


if __name__ == "__main__":
    with signals_leave():
        sys.exit(main())
