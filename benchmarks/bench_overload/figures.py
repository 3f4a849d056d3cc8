"""Pure: outcomes of calls against a deadline → figures of one arm, and the table of all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.measurement import percentile
from benchmarks.report import aligned

LOST = "LOST"
"""Neither a reply nor a status, long after the deadline."""

REFUSALS = ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
"""What a sidecar may say to a call that it does not answer. Anything else is a fault of it, or of the benchmark."""

USELESS_MS = 2.0
"""A refusal this short of the deadline counts as late: nobody can act on it, and the caller's own gRPC gives up about then."""


class Outcome(NamedTuple):
    """One call. due_s, sent_s: since the job began; sent later than due says that the caller itself was late.

    took_ms: from sending to the outcome, as the caller saw it. code: a gRPC status, or LOST. tier: that answered, "" for none.
    """

    due_s: float
    sent_s: float
    took_ms: float
    code: str
    tier: str


def arm_figures(outcomes: Sequence[Outcome], seconds: float, deadline_ms: float) -> dict[str, Any]:
    """Figures of one arm. Shares are of all calls and add up to 1: each tier in time, refused in time, late, lost, failed.

    late: a reply after the deadline, or a status less than USELESS_MS before it. refused: a status before that, with its time.
    """
    took_ms: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for each in outcomes:
        took_ms[_kind(each, deadline_ms)].append(each.took_ms)
    return {
        "calls": len(outcomes),
        "shares": {kind: len(took_ms[kind]) / max(len(outcomes), 1) for kind in KINDS},
        "lost": len(took_ms["lost"]),
        "codes": dict(sorted(Counter(each.code for each in outcomes).items())),
        "answer_ms": _spread([*took_ms["encoder"], *took_ms["ngram"]]),
        "refusal_ms": _spread(took_ms["refused"]),
        "encoder_answers_per_s": len(took_ms["encoder"]) / seconds,
        "sent_late_ms": _spread([(each.sent_s - each.due_s) * 1e3 for each in outcomes]),
    }


KINDS = ("encoder", "ngram", "refused", "late", "lost", "failed")


def capacity_per_s(outcomes: Sequence[Outcome], seconds: float) -> float:
    """Encoder answers per second that came within the window. 0 when any call failed."""
    if any(each.code != "OK" for each in outcomes):
        return 0.0
    return sum(each.sent_s + each.took_ms / 1e3 <= seconds for each in outcomes) / seconds


def overload_table(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines: one arm each."""
    header = ["", "calls/s", *(f"{kind} %" for kind in KINDS if kind != "lost"), "lost"]
    header += ["p50 ms", "p99 ms", "max ms", "refusal p50", "p99", "encoder/capacity"]
    rows = []
    for arm in arms:
        shares = [f"{100 * arm['shares'][kind]:.1f}" for kind in KINDS if kind != "lost"]
        answer_ms, refusal_ms = ([_shown(each) for each in arm[name] or (None,) * 3] for name in ("answer_ms", "refusal_ms"))
        label = f"{arm['load']:g}x, {arm['deadline_ms']:g} ms, fallback {'on' if arm['tier_fallback'] else 'off'}"
        rows.append(
            (
                label,
                f"{arm['calls_per_s']:.0f}",
                *shares,
                str(arm["lost"]),
                *answer_ms,
                *refusal_ms[:2],
                f"{arm['goodput']:.2f}",
            )
        )
    return aligned(header, rows)


def _kind(outcome: Outcome, deadline_ms: float) -> str:
    if outcome.code == LOST:
        return "lost"
    if outcome.code != "OK" and outcome.code not in REFUSALS:
        return "failed"
    if outcome.code == "OK":
        return outcome.tier if outcome.took_ms <= deadline_ms else "late"
    return "refused" if outcome.took_ms <= deadline_ms - USELESS_MS else "late"


def _spread(values: Sequence[float]) -> list[float | None] | None:
    """[p50, p99, max]; None of none."""
    return [percentile(values, 50), percentile(values, 99), max(values)] if values else None


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
