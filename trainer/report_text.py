"""Pure: a run's report as Markdown that reads as well in a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainer.audit import Finding
from trainer.intervals import COVERAGE, Interval
from trainer.records import UNKNOWN
from trainer.reliability import PROMISED_SHARE, Reliability
from trainer.report_claims import Ordering, verdicts
from trainer.report_pairs import LEAST_RATIO

PROMPT_CHARACTERS = 80


@dataclass(frozen=True)
class Side:
    """One prompt of a pair in the wrong order; tokens and expected in tokens."""

    prompt: str
    tokens: float
    expected: float


@dataclass(frozen=True)
class Mistake:
    """A pair in the wrong order. wrong_by: in standard deviations of the score."""

    longer: Side
    shorter: Side
    wrong_by: float


@dataclass(frozen=True)
class Report:
    """Everything the report says. train, validation, test: prompts in each part; length_label: what lengths were counted with."""

    name: str
    train: int
    validation: int
    test: int
    length_label: str
    findings: list[Finding]
    orderings: list[Ordering]
    reliability: Reliability
    mistakes: list[Mistake]


def render_report(report: Report, plot_file: str) -> str:
    """The report; `plot_file` is the plot's name beside it."""
    unit = report.length_label if report.length_label not in ("", UNKNOWN) else "an unknown tokenizer"
    lines = [
        f"# What {report.name} learned",
        "",
        f"{report.train:,} prompts trained, {report.validation:,} chose the checkpoint and calibrated it, {report.test:,} were opened",
        f"once, for what follows. Lengths are counted with {unit}. Intervals hold {COVERAGE:.0%}.",
        "",
        "## What the data can support",
        "",
        *([f"- {finding}" for finding in report.findings] or ["Nothing stands against it."]),
        "",
        "## The order of prompts it never saw",
        "",
        *_table(["ordering", "tau-b", "interval", "ranker minus it", "interval"], map(_ordering_cells, report.orderings)),
        "",
        *(f"- {sentence}" for sentence in verdicts(report.orderings)),
        "",
        "## Expected tokens",
        "",
        *_table(
            ["prompts", "expected median", "observed median", "expected p90", "observed p90"],
            (
                [f"{one.prompts:,}"]
                + [f"{value:,.0f}" for value in (one.expected, one.observed, one.expected_p90, one.observed_p90)]
                for one in report.reliability.bins
            ),
        ),
        "",
        f"{report.reliability.covered:.1%} ({_percent(report.reliability.covered_interval)}) of the responses have at most the "
        f"expected p90; {PROMISED_SHARE:.0%} should.",
        report.reliability.verdict,
        "",
        f"![Expected and observed tokens]({plot_file})",
        "",
        "## The worst pairs",
        "",
        *_mistakes(report.mistakes),
        "",
    ]
    return "\n".join(lines)


def shown(prompt: str) -> str:
    """A prompt on one line of a terminal: white space folded, control characters replaced, cut to PROMPT_CHARACTERS."""
    line = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(prompt.split()))
    return line if len(line) <= PROMPT_CHARACTERS else line[: PROMPT_CHARACTERS - 1] + "…"


def _ordering_cells(ordering: Ordering) -> list[str]:
    cells = [ordering.name, f"{ordering.tau_b:.3f}", _bounds(ordering.interval)]
    if ordering.gain_interval is None:
        return [*cells, "", ""]
    return [*cells, f"{ordering.gain:+.3f}", _bounds(ordering.gain_interval)]


def _mistakes(mistakes: list[Mistake]) -> list[str]:
    if not mistakes:
        return [f"No pair whose lengths differ by a factor of {LEAST_RATIO:.0f} or more is clearly in the wrong order."]
    lines = [
        f"Of the pairs whose lengths differ by a factor of {LEAST_RATIO:.0f} or more, those in the wrongest order, each prompt once.",
        "Wrong by: how much higher the prompt with the shorter response is scored, in standard deviations of the score.",
        "",
    ]
    for mistake in mistakes:
        lines.append(f"    wrong by {mistake.wrong_by:.1f}")
        for side in (mistake.longer, mistake.shorter):
            lines.append(f"      {side.tokens:>7,.0f} tokens, expected {side.expected:>7,.0f}: {shown(side.prompt)}")
    return lines


def _bounds(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _percent(interval: Interval) -> str:
    return f"{interval.low:.1%} to {interval.high:.1%}"


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """A Markdown table with its columns aligned, the first to the left and the rest to the right."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: list[str]) -> str:
        aligned = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(aligned)} |"

    rule = f"|{'-' * (widths[0] + 2)}|" + "".join(f"{'-' * (width + 1)}:|" for width in widths[1:])
    return [line(header), rule, *(line(row) for row in cells[1:])]
