"""Recipes: strict, and their promises are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus import make_records

from trainer.checkpoint import read_checkpoint
from trainer.config import TrainConfig
from trainer.errors import ConfigError, DataError, ExpectationError
from trainer.local import LocalSource
from trainer.model_card import render_model_card
from trainer.model_effects import to_examples
from trainer.recipe import Recipe, RecordSource, check_expectations, read_recipe
from trainer.records import Records
from trainer.run import run, split_examples


def recipe_text(backbone: Path, extra: str = "") -> str:
    return f"""
name = "from-recipe"
licence = "MIT"
[train]
backbone = "{backbone}"
max_tokens = 32
batch_prompts = 16
epochs = 1
learning_rate = 3e-3
similarity = 0.6
ngram_buckets = 1024
[[records]]
path = "train.parquet"
max_prompts = 300
licence = "MIT"
[[zero_shot]]
path = "other.parquet"
{extra}
"""


@pytest.mark.parametrize("least", [2, 1000], ids=["held-out part of a large set", "the whole of a small set"])
def test_a_recipe_runs_and_judges_zero_shot_on_unseen_prompts_only(
    least: int, tmp_path: Path, tiny_backbone: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.run.LEAST_ZERO_SHOT_PROMPTS", least)
    unique = [
        f"{prompt} {' '.join(f'{word}{i}' for word in ('alpha', 'beta', 'gamma', 'delta'))}"
        for i, prompt in enumerate(records.prompt)
    ]
    apart = replace(records, prompt=unique)
    apart.save(tmp_path / "train.parquet")
    other = make_records(400, seed=9)
    mixed = replace(
        other,
        prompt=[*unique[:200], *(f"{prompt} one{i} two{i} three{i} four{i}" for i, prompt in enumerate(other.prompt[200:]))],
        response_tokens=np.concatenate([records.response_tokens[:200], other.response_tokens[200:]]),
    )
    mixed.save(tmp_path / "other.parquet")
    (tmp_path / "recipe.toml").write_text(recipe_text(tiny_backbone, '[expect]\n"test.all.prompts" = [2, 100]\n'))
    recipe = read_recipe(tmp_path / "recipe.toml", tmp_path)
    loaded = recipe.records()
    assert len(loaded) == 300
    metrics = run(recipe, loaded, tmp_path / "run", command="x")
    assert metrics["prompts"]["train"] + metrics["prompts"]["validation"] + metrics["prompts"]["test"] == 300
    judged = metrics["zero_shot"]["other"]["prompts"]
    whole = to_examples(mixed)
    candidates = split_examples(whole, recipe.config).test if least == 2 else whole
    copies = len(set(candidates.prompt) & set(loaded.prompt))
    assert copies > 5
    # Copies of learned prompts and a few that are nearly such are left out; copies of this run's own test part were never learned.
    assert (len(candidates) - copies) * 0.8 <= judged <= len(candidates) - copies * 0.7


def test_a_missed_expectation_fails_the_run() -> None:
    recipe = Recipe(name="r", config=TrainConfig(), train=(), expect=(("test.all.tau_b", 0.5, 0.9),))
    check_expectations(recipe, {"test": {"all": {"tau_b": 0.7}}})
    with pytest.raises(ExpectationError, match=r"tau_b is 0\.4, expected 0\.5 to 0\.9"):
        check_expectations(recipe, {"test": {"all": {"tau_b": 0.4}}})
    with pytest.raises(ExpectationError, match="is None"):
        check_expectations(recipe, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epochs = 1", "epochs = 0"), "epochs must be at least 1"),
        (("epochs = 1", "epoch = 1"), "unknown setting 'epoch'"),
        (("epochs = 1", 'epochs = "1"'), "must be of type int"),
        (("path = ", "paths = "), "lacks a path"),
        (("max_prompts = 300", 'max_prompts = "300"'), "max_prompts = '300'"),
        (("max_prompts = 300", "max_prompt = 300"), "unknown keys max_prompt"),
        (('name = "from-recipe"', "author = 1"), "unknown keys author"),
        (("[train]", "[train"), "recipe.toml"),
    ],
)
def test_bad_recipes_are_explained(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "recipe.toml").write_text(recipe_text(Path("b")).replace(*change, 1))
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "recipe.toml", tmp_path)


def test_shipped_recipes_parse() -> None:
    recipes = sorted((Path(__file__).parents[2] / "trainer" / "recipes").glob("*.toml"))
    assert len(recipes) == 3
    for path in recipes:
        recipe = read_recipe(path, Path("data"))
        assert recipe.expect, f"{path.name} promises no figure"
    default = read_recipe(recipes[-1], Path("data"))
    assert default.name == "pars-minilm-l6-v2"
    assert {source.licence for source in default.train} <= {"MIT", "Apache-2.0"}, "the shipped ranker stays commercially usable"


def test_a_missing_zero_shot_file_is_noticed_before_training(tmp_path: Path, tiny_backbone: Path, records: Records) -> None:
    (tmp_path / "recipe.toml").write_text(recipe_text(tiny_backbone))
    recipe = read_recipe(tmp_path / "recipe.toml", tmp_path)
    with pytest.raises(DataError, match=r"other\.parquet: no such file"):
        run(recipe, records, tmp_path / "run", command="")
    assert not (tmp_path / "run").exists()


def test_the_card_says_which_sets_were_looked_at_while_choosing(tiny_checkpoint: Path) -> None:
    card = read_checkpoint(tiny_checkpoint).card
    judged = {
        f"zero_shot{suffix}": {"seen": figures["all"], "unseen": figures["all"]}
        for suffix, figures in (
            (key.removeprefix("test"), value) for key, value in card.metrics.items() if key.startswith("test")
        )
    }
    sources = tuple(RecordSource(LocalSource(Path(f"{name}.parquet")), watched=name == "seen") for name in ("seen", "unseen"))
    text = render_model_card(
        replace(card, metrics={**card.metrics, **judged}), Recipe(name="r", config=TrainConfig(), train=(), zero_shot=sources)
    )
    assert "| seen (watched) | encoder |" in text
    assert "| unseen (zero-shot) | encoder |" in text
    assert "settings were chosen by looking at it" in text
