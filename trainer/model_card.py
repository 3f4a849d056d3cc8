"""The checkpoint's README: what it was trained on, under which licences, and what it reached. Written from `ranker.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.checkpoint import RankerCard
from trainer.recipe import Recipe

_SCORERS = (
    ("encoder", ""),
    ("encoder, against one response", "_one_response"),
    ("n-gram", "_ngram"),
    ("prompt length", "_prompt_length"),
)
_COLUMNS = ("prompts", "tau_b", "pair_accuracy", "filtered_pair_accuracy")


_LOSS_WORDS = {
    "margin": "pairwise margin ranking loss (arXiv 2510.03243)",
    "logistic": "pairwise logistic loss",
    "soft_logistic": "pairwise logistic loss, softened by how much repeated responses differ",
    "regression": "squared error of the standardised log length",
    "margin_regression": "pairwise margin ranking loss (arXiv 2510.03243) plus squared error of the standardised log length",
    "listmle": "listwise likelihood loss (ListMLE)",
}


def write_model_card(folder: Path, card: RankerCard, recipe: Recipe) -> None:
    """Write `folder/README.md` in the hub's model card form."""
    (folder / "README.md").write_text(render_model_card(card, recipe), encoding="utf-8")


def render_model_card(card: RankerCard, recipe: Recipe) -> str:
    """The card as Markdown."""
    metrics, config = card.metrics, card.config
    lines = [
        "---",
        f"license: {card.licence.lower() or 'other'}",
        "pipeline_tag: text-classification",
        "tags: [learning-to-rank, llm-scheduling, response-length]",
        "---",
        f"# {card.name}",
        "",
        "Ranks prompts by the length of the response they will bring: a higher score means a longer expected response. A",
        f"sequence-classification head with one output on {_backbone(config)}, reading the first {card.max_tokens}",
        f"tokens of a prompt; {_LOSS_WORDS[config.get('loss', 'margin')]}. Beside it, `ngram.npy` holds a linear scorer on hashed",
        "token n-grams, the cheap tier.",
        "",
        "## Data",
        "",
        card.data_statement,
        "",
    ]
    if recipe.train:
        lines += ["| source | licence stated there | prompts used at most |", "|---|---|---|"]
    lines += [
        f"| {source.name} | {source.licence or 'not stated'} | {source.max_prompts or 'all'} |" for source in recipe.train
    ]
    counts = metrics["prompts"]
    lines += [
        "",
        f"{counts['train']:,} prompts trained, {counts['validation']:,} chose the checkpoint and calibrated it, {counts['test']:,} "
        "were opened once, for the table below. Prompts are split by hash; near-duplicates stay on one side. Lengths are counted "
        f"in tokens of {card.length_tokenizer}. Where several models answered a prompt, a model's own verbosity is taken out first.",
        "",
        "## Results on held-out prompts",
        "",
        f"Unfiltered first; the last column counts only pairs whose lengths differ by at least {config.get('min_gap')} relatively.",
        "",
        "| prompts of | scorer | prompts | tau-b | pair accuracy | filtered |",
        "|---|---|---|---|---|---|",
    ]
    watched = {source.name for source in recipe.zero_shot if source.watched}
    for part in ("test", "zero_shot"):
        for source in metrics.get(part, {}):
            note = "" if part == "test" else " (watched)" if source in watched else " (zero-shot)"
            for label, suffix in _SCORERS:
                lines.append(_row(f"{source}{note}", label, metrics[part + suffix][source]))
    lines += [
        "",
        "Zero-shot rows: no length of that set was learned, and prompts that are, or nearly are, among the learned ones are left out.",
        *(
            ["Watched rows: nothing of that set was learned either, but settings were chosen by looking at it."]
            if watched
            else []
        ),
        "Rows are judged against a prompt's typical length, the mean over all models that answered it; one response is noisier.",
        "",
        "## How it was made",
        "",
        f"    {card.command}",
        "",
        f"Seed {config.get('seed')}, commit {card.commit[:12] or 'unknown'}, "
        + ", ".join(f"{package} {number}" for package, number in card.versions.items())
        + f". {card.training.get('encoder_forwards', 0):,} prompts were encoded for training; every setting and the validation "
        "history are in `ranker.json`.",
        "",
        "## Limits",
        "",
        "A ranker sees the prompt only: what a given model really generates also depends on that model, its sampling settings and",
        "its system prompt. Token figures are those of the models in the data; calibrate on your own traffic before relying on them.",
        "",
    ]
    return "\n".join(lines)


def _row(source: str, label: str, figures: dict[str, Any]) -> str:
    prompts, *rest = (figures[column] for column in _COLUMNS)
    return f"| {source} | {label} | {prompts:,} | " + " | ".join(f"{value:.3f}" for value in rest) + " |"


def _backbone(config: dict[str, Any]) -> str:
    name, layers = str(config.get("backbone", "an encoder")), config.get("layers", 0)
    return f"the first {layers} layers of {name}" if layers else name
