"""A ranker's card → rows of the tau table. Only reads what training wrote: nothing is scored again."""

import json
from pathlib import Path
from typing import Any

from benchmarks.chain.report import PartError

# Key in the card's metrics → (who scored, had the ranker seen nothing of that data set).
_METRICS = {
    "test": ("encoder", False),
    "test_one_response": ("encoder, against one response", False),
    "test_ngram": ("n-gram", False),
    "test_prompt_length": ("prompt length", False),
    "zero_shot": ("encoder", True),
    "zero_shot_one_response": ("encoder, against one response", True),
    "zero_shot_ngram": ("n-gram", True),
    "zero_shot_prompt_length": ("prompt length", True),
}


def tau_rows(card_path: Path) -> list[dict[str, Any]]:
    """One row per data set and scorer, unfiltered figures first. Raises PartError when the file is no card with metrics."""
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        metrics, ranker = card["metrics"], card["name"]
        return [
            {"ranker": ranker, "scorer": scorer, "data_set": data_set, "zero_shot": zero_shot, **figures}
            for key, (scorer, zero_shot) in _METRICS.items()
            for data_set, figures in metrics.get(key, {}).items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PartError(f"{card_path} is no ranker card with metrics: {type(error).__name__}: {error}") from error
