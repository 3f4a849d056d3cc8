"""Pure: recorded calls → figures, and figures of several rounds → median and spread. No clock, no process."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np

from benchmarks.process_tree import Memory


class Call(NamedTuple):
    """One answered call. Times on the monotonic clock, which all processes of a machine share.

    tokens: summed over its prompts, 0 where the contender does not say. The last three are the server's own split; 0 from a
    contender that has no server.
    """

    began_s: float
    ended_s: float
    prompts: int
    tokens: int
    tokenize_time_ns: int = 0
    queue_time_ns: int = 0
    infer_time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Recording:
    """What one process did in one case. Calls outside [begin_s, end_s) are warm-up or the last ones to end.

    failures: count by error name. cpu_s: CPU seconds of that process over all of its calls, those outside included.
    """

    begin_s: float
    end_s: float
    calls: Sequence[Call]
    failures: dict[str, int]
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures of one case in one round. None: nothing to measure it by."""

    completed_calls: int
    failures: dict[str, int]
    prompts_per_s: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    mean_prompt_tokens: float | None
    server_tokenize_p50_ms: float | None
    server_queue_p50_ms: float | None
    server_infer_p50_ms: float | None
    outside_server_p50_ms: float | None
    """Client, kernel and gRPC: what the caller waited beyond the server's own three times. Only of single-prompt calls: the prompts
    of a larger one wait and run in several batches at a time, so its times overlap."""
    caller_cpu_s_per_1000_prompts: float | None
    scorer_cpu_s_per_1000_prompts: float | None
    server_rss_mib: float | None
    server_pss_mib: float | None
    """Of the server with all its children, see process_tree.Memory. None from a contender that has no server."""

    @property
    def failed(self) -> bool:
        """A call failed, or none came back in time. Such figures are shown as failed and used for nothing."""
        return bool(self.failures) or self.completed_calls == 0


class Spread(NamedTuple):
    """One figure over the rounds."""

    median: float
    lowest: float
    highest: float


FIGURES = tuple(each.name for each in fields(Measurement) if each.name not in ("completed_calls", "failures"))


@dataclass(frozen=True, slots=True)
class Row:
    """One case over all rounds. what: for people. Rounds with a failure are counted and left out of every figure."""

    name: str
    what: str
    rounds: Sequence[Measurement] = field(default_factory=tuple)

    @property
    def clean_rounds(self) -> list[Measurement]:
        return [each for each in self.rounds if not each.failed]

    @property
    def failures(self) -> dict[str, int]:
        """Failed calls by error name, over all rounds."""
        return added([each.failures for each in self.rounds])

    def spread(self, figure: str) -> Spread | None:
        """Median and range of one of FIGURES over the clean rounds."""
        return spread_of([getattr(each, figure) for each in self.clean_rounds])


def measure(
    recordings: Sequence[Recording], server_cpu_s: float | None = None, server_memory: Memory | None = None
) -> Measurement:
    """Figures of one case from the processes that took part in it.

    server_cpu_s: CPU seconds of the server they called meanwhile; server_memory: what it held at the end. None: they called nobody
    and scored by themselves.
    """
    begin_s, end_s = recordings[0].begin_s, recordings[0].end_s
    calls = [call for each in recordings for call in each.calls]
    # By their beginning: choosing calls by their end would drop the slow ones that the window cuts off.
    inside = [call for call in calls if begin_s <= call.began_s < end_s]
    latencies_ms = [(call.ended_s - call.began_s) * 1e3 for call in inside]
    served_ms = [(call.tokenize_time_ns + call.queue_time_ns + call.infer_time_ns) / 1e6 for call in inside]
    split = inside if any(served_ms) else []
    outside_ms = [
        whole - served
        for call, whole, served in zip(inside, latencies_ms, served_ms, strict=True)
        if split and call.prompts == 1
    ]
    prompts = sum(call.prompts for call in calls)
    inside_prompts = sum(call.prompts for call in inside)
    tokens = sum(call.tokens for call in inside)
    per_1000 = 1000 / prompts if prompts else None
    own_cpu_s = sum(each.cpu_s for each in recordings)
    return Measurement(
        completed_calls=len(inside),
        failures=added([each.failures for each in recordings]),
        prompts_per_s=prompts_per_s(calls, begin_s, end_s),
        p50_ms=percentile(latencies_ms, 50),
        p90_ms=percentile(latencies_ms, 90),
        p99_ms=percentile(latencies_ms, 99),
        mean_prompt_tokens=tokens / inside_prompts if tokens else None,
        server_tokenize_p50_ms=percentile([call.tokenize_time_ns / 1e6 for call in split], 50),
        server_queue_p50_ms=percentile([call.queue_time_ns / 1e6 for call in split], 50),
        server_infer_p50_ms=percentile([call.infer_time_ns / 1e6 for call in split], 50),
        outside_server_p50_ms=percentile(outside_ms, 50),
        caller_cpu_s_per_1000_prompts=None if per_1000 is None or server_cpu_s is None else own_cpu_s * per_1000,
        scorer_cpu_s_per_1000_prompts=per_1000 and (own_cpu_s if server_cpu_s is None else server_cpu_s) * per_1000,
        server_rss_mib=server_memory.rss_mib if server_memory else None,
        server_pss_mib=server_memory.pss_mib if server_memory else None,
    )


def prompts_per_s(calls: Sequence[Call], begin_s: float, end_s: float) -> float:
    """Throughput in the window. A call that straddles an edge counts by the share of its time inside.

    Counting whole calls would be off by one call: by 5% for a few callers with 32 prompts each in two seconds.
    """
    done = 0.0
    for call in calls:
        inside_s = min(call.ended_s, end_s) - max(call.began_s, begin_s)
        if inside_s > 0:
            done += call.prompts * inside_s / (call.ended_s - call.began_s)
    return done / (end_s - begin_s)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Linear between the two nearest values; None of none."""
    return float(np.percentile(values, percent)) if values else None


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """Median and range of the values that are there; None when there are none."""
    there = [value for value in values if value is not None]
    return Spread(statistics.median(there), min(there), max(there)) if there else None


def ratio(above: Row, below: Row, figure: str) -> Spread | None:
    """above / below, round by round, then the median: both sides of one round saw the same machine.

    Rounds in which either failed are left out; None when none is left.
    """
    ratios = [
        getattr(one, figure) / getattr(other, figure)
        for one, other in zip(above.rounds, below.rounds, strict=True)
        if not one.failed and not other.failed and getattr(other, figure)
    ]
    return spread_of(ratios)


def best(rows: Sequence[Row], figure: str) -> Row | None:
    """The row with the highest median; None when all of them failed.

    By the median over rounds, not round by round: the maximum of noisy values would flatter the limit.
    """
    medians = [(spread.median, row) for row in rows if (spread := row.spread(figure)) is not None]
    return max(medians, key=lambda pair: pair[0])[1] if medians else None


def added(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Counts by name, summed."""
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total
