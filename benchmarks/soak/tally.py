"""Pure: what became of every call, counted. Small enough to be sent from process to process and added up."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

UNANSWERED = "UNANSWERED"
"""Neither a reply nor a status, although the deadline and the slack have passed."""

LATE_S = 0.05
"""An answer is counted as late when it comes this long after its deadline: the caller's own process needs some milliseconds, too."""

KEPT_FAULTS = 20
"""Shown in the report; all are counted."""

KEPT_REASONS = 8
"""Of each class of deadline."""


class Tally:
    """Outcomes by kind of call and status; faults are outcomes that break a promise."""

    def __init__(self) -> None:
        self.calls: dict[str, Counter[str]] = {}
        self.tiers: Counter[str] = Counter()
        self.by_deadline: dict[str, Counter[str]] = {}
        self.reasons: dict[str, Counter[str]] = {}
        self.worst_late_s = 0.0
        self.worst_own_lag_s = 0.0
        self.faults: list[str] = []
        self.unanswered = 0
        self.wrong = 0
        self.held_back = 0
        """Calls not made because too many were open already: the load was less than planned."""

    def ended(self, what: str, status: str) -> None:
        """Count one call."""
        self.calls.setdefault(what, Counter())[status] += 1
        if status == UNANSWERED:
            self.unanswered += 1
            self._keep(f"{what}: no answer")

    def measured(self, deadline: str, status: str, details: str, late_s: float) -> None:
        """Note how a scoring call that nobody cancelled fared. deadline: its class. late_s: by how much it missed it."""
        counts = self.by_deadline.setdefault(deadline, Counter())
        counts[status] += 1
        if status != "OK":
            # Numbers and addresses differ from call to call, the reason does not.
            reason = re.sub(r"\d+", "N", details.partition("; last error")[0])
            self.reasons.setdefault(deadline, Counter())[f"{status}: {reason}"] += 1
        if late_s > LATE_S:
            counts["late"] += 1
            self.worst_late_s = max(self.worst_late_s, late_s)

    def faulty(self, what: str, fault: str) -> None:
        """Note that a call which was counted ended wrongly."""
        self.wrong += 1
        self._keep(f"{what}: {fault}")

    def lagged(self, lag_s: float) -> None:
        """Note by how much this process itself was late for something."""
        self.worst_own_lag_s = max(self.worst_own_lag_s, lag_s)

    def to_json(self) -> dict[str, Any]:
        return {
            "calls": {what: dict(sorted(counts.items())) for what, counts in sorted(self.calls.items())},
            "tiers": dict(self.tiers),
            "by_deadline": {name: dict(sorted(counts.items())) for name, counts in sorted(self.by_deadline.items())},
            "reasons": {name: dict(counts.most_common(KEPT_REASONS)) for name, counts in sorted(self.reasons.items())},
            "worst_late_s": self.worst_late_s,
            "worst_own_lag_s": self.worst_own_lag_s,
            "unanswered": self.unanswered,
            "wrong": self.wrong,
            "held_back": self.held_back,
            "faults": self.faults,
        }

    def _keep(self, fault: str) -> None:
        if len(self.faults) < KEPT_FAULTS:
            self.faults.append(fault)


def total_of(tally: Mapping[str, Any]) -> int:
    """Calls in a tally as JSON."""
    return sum(sum(counts.values()) for counts in tally["calls"].values())
