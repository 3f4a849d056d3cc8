"""Going on from a finished checkpoint, such as the shipped ranker: it needs no hub, and knows already what most prompts ask for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from trainer.checkpoint import CARD_FILE
from trainer.errors import CheckpointError, ConfigError
from trainer.recipe import Recipe


def start_from(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe with `folder` in place of the backbone, read as many tokens, and said on the card.

    Raises CheckpointError when `folder` is no checkpoint, ConfigError when the recipe has zero-shot sets: whether the checkpoint learned
    from them is not known here, so no claim about unseen data could be made.
    """
    if recipe.zero_shot:
        raise ConfigError("zero-shot sets mean nothing after --start: what that checkpoint has learned from is not known")
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        name, max_tokens, statement = str(card["name"]), int(card["max_tokens"]), str(card["data_statement"])
    except OSError as error:
        raise CheckpointError(f"{folder}: no {CARD_FILE}; not a checkpoint folder of this trainer") from error
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / CARD_FILE}: not readable: {error}") from error
    lineage = f"Training went on from the checkpoint {name}, which has learned from other data: {statement}"
    return replace(
        recipe,
        config=replace(recipe.config, backbone=str(folder), max_tokens=max_tokens),
        data_statement=f"{recipe.data_statement} {lineage}".strip(),
    )
