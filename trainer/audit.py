"""Pure: what a data set can support, said before anything is trained. What it cannot support is refused, not trained and claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from trainer.config import TrainConfig
from trainer.errors import DataError
from trainer.intervals import half_width_of_no_order
from trainer.model_effects import Examples, to_examples
from trainer.pairs import relative_gap
from trainer.records import UNKNOWN, Records
from trainer.repeat_ceiling import repeat_ceiling
from trainer.split import Rows, near_duplicates, split_by_hash

Lengths = npt.NDArray[np.float64]


class Severity(StrEnum):
    """How much a finding matters: REFUSED stops the run, WARNING limits what it can show, NOTE is good to know."""

    REFUSED = "refused"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing about the data. says: what is so. do: what would help, "" where nothing needs to be done."""

    severity: Severity
    says: str
    do: str = ""

    def __str__(self) -> str:
        return f"{self.severity}: {self.says}" + (f" {self.do}" if self.do else "")


@dataclass(frozen=True)
class Least:
    """Independent prompts, near-duplicates counting once, that a part needs at all (`hard`) and to say much (`soft`)."""

    hard: int
    soft: int


LEAST = {
    # At the usual batch of 32: two steps an epoch, and some thirty.
    "training": Least(50, 1000),
    # The 90th percentile at a knot is taken over a tenth of these, and at least ten (trainer/calibrate.py).
    "validation": Least(10, 200),
    # 10 prompts can only tell a tau above 0.49 from none, 200 one above 0.09 (trainer/intervals.py).
    "test": Least(10, 200),
}
"""Choices, each with its reason. Ours, not the paper's."""

ENOUGH_PROMPTS = 200
"""With this many, a tenth has `hard` prompts but for one draw in three hundred: P(Binomial(200, 0.1) < 10) is 0.0035."""

LEAST_PAIR_SHARE = 0.05
FEW_PAIR_SHARE = 0.2
"""Share of pairs far enough apart to learn from: below the first, refused; below the second, a warning. At δ = 0.2, normal log lengths of
standard deviation 0.08 have 5%, of 0.125 have 20%; six public instruction sets have 75 to 88%."""

LARGE_GROUP_SHARE = 0.2
"""Share of the prompts in one group of near-duplicates from which a split by group goes wrong: it is more than a held-out part."""

CAPPED_SHARE, CAPPED_ROWS = 0.02, 10
"""Share and number of a model's responses at exactly its greatest length from which that length is taken for a limit."""

_SAMPLE = 2000
"""Prompts whose pairs are counted: two million pairs."""


def check_data(records: Records, config: TrainConfig, length_label: str) -> list[Finding]:
    """What is to be known before training. Raises DataError, with all of it, when a finding refuses the data."""
    findings = audit(records, config, length_label)
    refused = [finding for finding in findings if finding.severity is Severity.REFUSED]
    if refused:
        # Warnings as well: that most prompts are near-copies, for instance, is why a part is too small.
        told = [finding for finding in findings if finding.severity is not Severity.NOTE]
        raise DataError("this data cannot support a ranker, nothing was trained:\n" + "\n".join(f"- {one}" for one in told))
    return findings


def audit(records: Records, config: TrainConfig, length_label: str) -> list[Finding]:
    """All findings, the gravest first. length_label: what the lengths were counted with, "" or `unknown` where nobody says."""
    examples = to_examples(records, seed=config.seed)
    groups = near_duplicates(examples.prompt, config.similarity) if config.similarity else np.arange(len(examples))
    findings = [
        *part_findings(examples.prompt, groups, config),
        *length_findings(examples.typical_tokens, config),
        *repeat_findings(records, config.seed),
        *group_findings(len(records), examples, groups, config),
        *cap_findings(records),
        *unit_findings(length_label),
    ]
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def part_findings(prompts: Sequence[str], groups: Rows, config: TrainConfig) -> list[Finding]:
    """Are there enough independent prompts in each part? groups: int64[n], group of near-duplicates of each prompt."""
    rows = split_by_hash(
        prompts, validation_share=config.validation_share, test_share=config.test_share, similarity=config.similarity
    )
    findings = []
    for (name, least), part in zip(LEAST.items(), (rows.train, rows.validation, rows.test), strict=True):
        independent = len(np.unique(groups[part]))
        has = f"the {name} part has {independent:,} prompts" + (
            f" ({len(part):,} with near-duplicates)" if independent < len(part) else ""
        )
        if independent < least.hard:
            need = f"Bring {ENOUGH_PROMPTS} prompts or more that are no near-copies of each other; a thousand show much more."
            findings.append(Finding(Severity.REFUSED, f"{has}; at least {least.hard} are needed.", need))
        elif name == "test" and independent < least.soft:
            width = half_width_of_no_order(independent)
            says = f"{has}: tau will be known to about ±{width:.2f}, so a smaller tau or difference cannot be told from none."
            findings.append(Finding(Severity.WARNING, says, f"{least.soft} or more would be better."))
        elif independent < least.soft:
            why = {
                "training": "there is little to learn from",
                "validation": "expected tokens are rough, their 90th percentile most",
            }
            findings.append(Finding(Severity.WARNING, f"{has}: {why[name]}.", f"{least.soft:,} or more would be better."))
    return findings


def length_findings(typical_tokens: Lengths, config: TrainConfig) -> list[Finding]:
    """Do the lengths differ enough to be ordered? typical_tokens: float[n], one length for each prompt."""
    share = share_of_pairs(typical_tokens, config.min_gap, config.seed)
    says = f"{share:.1%} of the pairs of prompts have lengths that differ by {config.min_gap:.0%} or more"
    if share < LEAST_PAIR_SHARE:
        do = f"At least {LEAST_PAIR_SHARE:.0%} are needed: lengths this alike leave no order to learn, and none to gain in scheduling."
        return [Finding(Severity.REFUSED, f"{says}.", do)]
    if share < FEW_PAIR_SHARE:
        return [Finding(Severity.WARNING, f"{says}: there is little to order, and little to gain.")]
    return []


def share_of_pairs(lengths: Lengths, min_gap: float, seed: int) -> float:
    """Share of all pairs that differ, by a relative gap of at least `min_gap`; counted on a sample. lengths: float[n]."""
    sample = np.random.default_rng(seed).permutation(lengths)[:_SAMPLE]
    first, second = np.triu_indices(len(sample), k=1)
    if not len(first):
        return 0.0
    differ = (sample[first] != sample[second]) & (relative_gap(sample[first], sample[second]) >= min_gap)
    return float(differ.mean())


def repeat_findings(records: Records, seed: int) -> list[Finding]:
    """What repeats say about the best tau any ranker of prompts can have."""
    ceiling = repeat_ceiling(records, seed=seed)
    if ceiling is None:
        return []
    says = (
        f"{ceiling.prompts:,} prompts were answered more than once by one model: one answer orders another with tau "
        f"{ceiling.repeat_tau_b:.2f}, so the best that any ranker of prompts can reach here is a tau of about {ceiling.tau_b:.2f}."
    )
    if ceiling.tau_b < half_width_of_no_order(LEAST["test"].soft):
        return [
            Finding(Severity.WARNING, says, "The length is hardly a property of the prompt: shortest first cannot help here.")
        ]
    return [Finding(Severity.NOTE, says)]


def group_findings(row_count: int, examples: Examples, groups: Rows, config: TrainConfig) -> list[Finding]:
    """Rows merged because their prompt is the same, and prompts kept on one side of the split because they are nearly so."""
    findings = []
    if row_count > len(examples):
        says = f"{row_count:,} rows hold {len(examples):,} different prompts; rows of one prompt become one target."
        findings.append(Finding(Severity.NOTE, says))
    sizes = np.bincount(groups)
    largest = int(sizes.max())
    if largest > 1:
        together = int(sizes[sizes > 1].sum())
        group_count = int((sizes > 1).sum())
        kept = f"{group_count:,} group{'s' if group_count > 1 else ''} of near-duplicates"
        says = f"{together:,} prompts fall into {kept}, each kept on one side of the split."
        findings.append(Finding(Severity.NOTE, says))
    if largest > 1 and largest >= LARGE_GROUP_SHARE * len(examples):
        says = f"{largest:,} of {len(examples):,} prompts are near-duplicates of each other, such as fillings of one template."
        do = (
            "If what differs between them decides the length, split them with --similarity 0; tau then is that of new fillings."
        )
        findings.append(Finding(Severity.WARNING, says, do))
    return findings


def cap_findings(records: Records) -> list[Finding]:
    """Many responses of a model at exactly its greatest length: it was stopped there, and would have gone on."""
    rows_of: dict[str, list[int]] = {}
    for row, model in enumerate(records.model):
        rows_of.setdefault(model, []).append(row)
    capped: dict[str, tuple[int, float]] = {}
    for model, rows in rows_of.items():
        tokens = records.response_tokens[rows]
        at_most = int((tokens == tokens.max()).sum())
        if at_most >= CAPPED_ROWS and CAPPED_SHARE * len(rows) <= at_most < len(rows):
            capped[model] = at_most, float(tokens.max())
    if not capped:
        return []
    worst, (count, longest) = max(capped.items(), key=lambda item: item[1][0])
    whose = "" if len(rows_of) == 1 else f" of {worst}"
    others = f" (and {len(capped) - 1} more models have such a limit)" if len(capped) > 1 else ""
    says = (
        f"{count:,} of {len(rows_of[worst]):,} responses{whose} have exactly the greatest length, {longest:,.0f}{others}: they were "
        "probably cut there. Their order is unknown, and expected tokens near the top are too low."
    )
    return [Finding(Severity.WARNING, says, "Record with a higher max_tokens if the server allows more.")]


def unit_findings(length_label: str) -> list[Finding]:
    """Is it known what a length is counted in?"""
    if length_label in ("", UNKNOWN):
        says = "nothing says what the lengths were counted with, so expected tokens are in an unknown unit."
        return [Finding(Severity.WARNING, says, "Name the tokenizer of the model you serve with --length-tokenizer.")]
    if length_label in ("words", "chars"):
        says = f"lengths are counted in {length_label}, which misorder code and answers that are not in English."
        return [
            Finding(Severity.WARNING, says, "Count with the tokenizer of the model you serve: `python -m trainer prepare`.")
        ]
    return []
