"""What a finished run learned, for the person who started it: RUN/report.md, which is also what the terminal shows, and a plot.

Prompts of the data stand in it; it stays in the run folder and never goes into the checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.audit import Finding
from trainer.checkpoint import CARD_FILE, Checkpoint
from trainer.model_effects import Examples
from trainer.ngram_fit import score_all
from trainer.ranker import Ranker
from trainer.reliability import reliability
from trainer.report_claims import FloatArray, judge_orderings, prompt_length_ordering
from trainer.report_pairs import worst_pairs
from trainer.report_plot import plot_reliability
from trainer.report_text import Mistake, Report, Side, render_report

REPORT_FILE = "report.md"
PLOT_FILE = "reliability.svg"


def write_report(
    folder: Path, checkpoint: Checkpoint, *, train: Examples, validation: Examples, test: Examples, findings: list[Finding]
) -> None:
    """Judge a finished checkpoint on its test part; write report and plot into the run's `folder`. findings: of the audit before."""
    card = checkpoint.card
    assert card.calibration is not None, "a finished checkpoint is calibrated"
    scores = checkpoint.ranker.score(checkpoint.ranker.tokenize(test.prompt))
    expected = np.interp(scores, card.calibration.scores, card.calibration.expected_tokens)

    def side(row: int) -> Side:
        return Side(test.prompt[row], float(test.typical_tokens[row]), float(expected[row]))

    report = Report(
        name=card.name,
        train=len(train),
        validation=len(validation),
        test=len(test),
        length_label=card.length_tokenizer,
        findings=findings,
        orderings=judge_orderings(scores, _rivals(checkpoint, train, test), test.typical_tokens),
        reliability=reliability(scores, test.sampled_tokens, card.calibration),
        mistakes=[
            Mistake(side(pair.longer), side(pair.shorter), pair.wrong_by) for pair in worst_pairs(scores, test.typical_tokens)
        ],
    )
    plot_reliability(report.reliability, folder / PLOT_FILE)
    (folder / REPORT_FILE).write_text(render_report(report, PLOT_FILE), encoding="utf-8")


def _rivals(checkpoint: Checkpoint, train: Examples, test: Examples) -> dict[str, FloatArray]:
    """What else could order the test prompts: the cheap scorer, prompt length, and the checkpoint that training started from."""
    token_ids = checkpoint.ranker.tokenize(test.prompt)
    rivals: dict[str, FloatArray] = {}
    if checkpoint.ngram_weights is not None:
        rivals["the cheap scorer"] = score_all(token_ids, checkpoint.ngram_weights)
    name, scores = prompt_length_ordering(test.prompt, train.prompt, train.typical_tokens)
    rivals[name] = scores
    start = Path(str(checkpoint.card.config.get("backbone", "")))
    if (start / CARD_FILE).is_file():
        before = Ranker.load(start, checkpoint.card.max_tokens)
        rivals[f"{start.name} before training"] = before.score(before.tokenize(test.prompt))
    return rivals
