"""The loop and what surrounds it, on a tiny BERT: it learns, it resumes to the bit, its folders come back as written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import make_records, tiny_config

from pars import ngram
from trainer import loop
from trainer.__main__ import main
from trainer.checkpoint import read_checkpoint, write_checkpoint
from trainer.config import TrainConfig
from trainer.errors import CheckpointError, ConfigError, DataError, ExpectationError, TrainerError
from trainer.evaluate import rank_metrics
from trainer.local import LocalSource
from trainer.model_effects import to_examples
from trainer.pairs import read_pair_file
from trainer.ranker import Ranker
from trainer.recipe import Recipe, check_expectations, read_recipe
from trainer.records import Records
from trainer.release import import_release
from trainer.run import run, split_examples


def trainer(*words: str | Path) -> int:
    """The command line, in this process."""
    return main([str(word) for word in words])


def training_set(config: TrainConfig, ranker: Ranker, records: Records) -> loop.TrainingSet:
    parts = split_examples(to_examples(records), config)
    return loop.TrainingSet(
        token_ids=ranker.tokenize(parts.train.prompt),
        lengths=parts.train.typical_tokens,
        weights=parts.train.weight,
        validation_token_ids=ranker.tokenize(parts.validation.prompt),
        validation_lengths=parts.validation.typical_tokens,
    )


def test_a_tiny_ranker_learns_what_the_words_mean(tiny_checkpoint: Path) -> None:
    card = read_checkpoint(tiny_checkpoint).card
    for tier in ("test", "test_ngram"):
        assert card.metrics[tier]["all"]["tau_b"] > 0.7, tier
        assert card.metrics[tier]["all"]["filtered_pair_accuracy"] > 0.9, tier
    assert card.metrics["test_prompt_length"]["all"]["tau_b"] < card.metrics["test"]["all"]["tau_b"]
    assert card.training["history"][-1]["step"] == card.training["steps"]


def test_checkpoint_reloads_to_the_scores_it_was_calibrated_with(tiny_checkpoint: Path, records: Records) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint)
    parts = split_examples(to_examples(records), TrainConfig.from_mapping({**checkpoint.card.config}))
    scores = checkpoint.ranker.score(checkpoint.ranker.tokenize(parts.validation.prompt))
    table = checkpoint.card.calibration
    assert table is not None
    # The outermost knots are the lowest and the highest validation score: through fp16 and back they did not move.
    assert table.scores[0] == pytest.approx(scores.min(), abs=1e-5)
    assert table.scores[-1] == pytest.approx(scores.max(), abs=1e-5)
    assert checkpoint.ngram_weights is not None
    assert checkpoint.ngram_weights.shape == (ngram.weight_count(1024),)
    assert checkpoint.ranker.model.dtype == torch.float32


def test_model_card_states_licence_and_figures(tiny_checkpoint: Path) -> None:
    text = (tiny_checkpoint / "README.md").read_text()
    card = read_checkpoint(tiny_checkpoint).card
    assert text.startswith("---\nlicense: apache-2.0\n")
    assert f"{card.metrics['test']['all']['tau_b']:.3f}" in text


class StopAfter(Exception):
    """Raised in place of a kill."""


def test_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_backbone: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. Train without interruption. 2. Train again and stop in the middle of an epoch, some steps after the last saved state.
    3. Start once more in the same folder. The weights of 1 and 3 are equal to the bit, and so is the history."""
    config = tiny_config(tiny_backbone, evaluations_per_epoch=3)

    def weights_of(ranker: Ranker) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in ranker.model.state_dict().items()}

    straight = Ranker.load(tiny_backbone, 32)
    whole = loop.train(config, training_set(config, straight, records), straight, tmp_path / "straight")

    interrupted = Ranker.load(tiny_backbone, 32)
    seen = 0
    real = loop.margin_ranking_loss

    def stop_in_the_second_epoch(*arguments: object, **options: object) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if seen == whole.step * 3 // 4:
            raise StopAfter
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "margin_ranking_loss", stop_in_the_second_epoch)
    with pytest.raises(StopAfter):
        loop.train(config, training_set(config, interrupted, records), interrupted, tmp_path / "killed")
    monkeypatch.setattr(loop, "margin_ranking_loss", real)

    resumed = Ranker.load(tiny_backbone, 32)
    second = loop.train(config, training_set(config, resumed, records), resumed, tmp_path / "killed")
    assert second.step == whole.step
    assert [entry["validation_tau_b"] for entry in second.history] == [entry["validation_tau_b"] for entry in whole.history]
    for name, tensor in weights_of(straight).items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_a_run_folder_of_other_settings_is_refused(
    tmp_path: Path, tiny_backbone: Path, records: Records, tiny_run: Path
) -> None:
    shutil.copytree(tiny_run / "state", tmp_path / "state")
    config = tiny_config(tiny_backbone, margin=2.0)
    ranker = Ranker.load(tiny_backbone, 32)
    with pytest.raises(ConfigError, match="other settings \\(margin\\)"):
        loop.train(config, training_set(config, ranker, records), ranker, tmp_path / "state")


def test_equal_lengths_leave_nothing_to_learn(tmp_path: Path, tiny_backbone: Path) -> None:
    config = tiny_config(tiny_backbone)
    flat = Records.build([f"prompt {i}" for i in range(60)], np.full(60, 50.0))
    ranker = Ranker.load(tiny_backbone, 32)
    with pytest.raises(DataError, match="no pair to learn from"):
        loop.train(config, training_set(config, ranker, flat), ranker, tmp_path)


def test_too_few_prompts_are_refused(tiny_backbone: Path) -> None:
    with pytest.raises(DataError, match="at least 2 are needed"):
        split_examples(to_examples(make_records(5)), tiny_config(tiny_backbone))


def test_the_reference_way_pair_file_and_all(tmp_path: Path, tiny_backbone: Path, records: Records) -> None:
    """prepare → pairs → train on the pair file, through the command line."""
    records.save(tmp_path / "records.parquet")
    common = ["--similarity", "0", "--max-tokens", "32"]
    assert (
        main(
            [
                "pairs",
                "--records",
                str(tmp_path / "records.parquet"),
                "--out",
                str(tmp_path / "pairs.json"),
                "--per-prompt",
                "4",
                *common,
            ]
        )
        == 0
    )
    pairs = read_pair_file(tmp_path / "pairs.json")
    assert 400 < len(pairs) < 4 * 400
    arguments = ["train", "--records", str(tmp_path / "records.parquet"), "--pair-file", str(tmp_path / "pairs.json")]
    arguments += ["--out", str(tmp_path / "run"), "--backbone", str(tiny_backbone), "--epochs", "1", "--learning-rate", "3e-3"]
    arguments += ["--batch-prompts", "32", "--ngram-buckets", "1024", *common]
    assert main(arguments) == 0
    card = read_checkpoint(tmp_path / "run" / "checkpoint").card
    assert card.metrics["test"]["all"]["tau_b"] > 0.5
    steps = card.training["steps"]
    assert steps * 32 >= len(pairs) > (steps - 1) * 32
    assert card.training["encoder_forwards"] == 2 * len(pairs), "both sides of every pair are encoded"


def test_pairs_of_held_out_prompts_are_not_learned_from(tmp_path: Path, tiny_backbone: Path, records: Records) -> None:
    config = tiny_config(tiny_backbone, pairs="file", epochs=1)
    parts = split_examples(to_examples(records), config)
    recipe = Recipe(name="x", config=config, train=())
    with pytest.raises(DataError, match="within the training part"):
        run(recipe, records, tmp_path, command="", pairs=[(parts.test.prompt[0], parts.train.prompt[0])])


def test_sigkill_and_rerun_through_the_command_line(tmp_path: Path, tiny_backbone: Path, records: Records) -> None:
    """1. Start a long run as a process. 2. Kill it with SIGKILL once a state is saved. 3. The same command finishes."""
    records.save(tmp_path / "records.parquet")
    command = [
        sys.executable,
        "-m",
        "trainer",
        "train",
        "--records",
        str(tmp_path / "records.parquet"),
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--backbone", str(tiny_backbone), "--max-tokens", "32", "--batch-prompts", "16", "--similarity", "0"]
    command += ["--ngram-buckets", "1024", "--evaluations-per-epoch", "6", "--epochs", "12"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    saved = tmp_path / "run" / "state" / "last" / "progress.json"
    deadline = time.monotonic() + 90
    while not saved.exists():
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert not (tmp_path / "run" / "checkpoint").exists()
    step = json.loads(saved.read_text())["step"] if saved.exists() else 0
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    card = read_checkpoint(tmp_path / "run" / "checkpoint").card
    assert card.training["steps"] > step
    assert json.loads(finished.stdout)["test"] == card.metrics["test"]


# Recipes


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


def test_a_recipe_runs_and_judges_zero_shot_on_unseen_prompts_only(
    tmp_path: Path, tiny_backbone: Path, records: Records
) -> None:
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
    held_out = split_examples(to_examples(mixed), recipe.config).test
    copies = len(set(held_out.prompt) & set(loaded.prompt))
    assert copies > 5
    assert judged <= len(held_out) - copies * 0.7, (
        "copies of learned prompts are left out (test-part copies were never learned)"
    )


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
    assert default.name == "pars-minilm-l6"
    assert {source.licence for source in default.train} <= {"MIT", "Apache-2.0"}, "the shipped ranker stays commercially usable"


# The reference release's checkpoint


class ReleaseRanker(torch.nn.Module):
    """The released ranker's shape: an encoder, its pooler's output, one linear layer."""

    def __init__(self, encoder: torch.nn.Module, hidden: int) -> None:
        super().__init__()
        self.bert = encoder
        self.fc = torch.nn.Linear(hidden, 1)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bert(**inputs).pooler_output)[:, 0]


@pytest.fixture
def release(tiny_backbone: Path) -> ReleaseRanker:
    from transformers import BertModel

    torch.manual_seed(3)
    return ReleaseRanker(BertModel.from_pretrained(tiny_backbone), 32).eval()


@pytest.mark.parametrize("wrapper", [None, "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_release_checkpoint_keeps_its_scores(
    tmp_path: Path, tiny_backbone: Path, release: ReleaseRanker, records: Records, wrapper: str | None, prefix: str
) -> None:
    state = {prefix + name: tensor for name, tensor in release.state_dict().items()}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "best_model.pt")
    import_release(tmp_path / "best_model.pt", str(tiny_backbone), tmp_path / "checkpoint", max_tokens=32)
    ranker = read_checkpoint(tmp_path / "checkpoint").ranker
    ids = ranker.tokenize(records.prompt[:50])
    with torch.no_grad():
        wanted = release(**ranker.collate(ids)).numpy()
    scores = ranker.score(ids)
    np.testing.assert_allclose(scores, wanted, atol=2e-3)  # the folder holds fp16
    assert rank_metrics(scores, wanted.astype(float), min_gap=0.0).tau_b > 0.98


def test_an_imported_release_can_be_calibrated_and_then_has_everything(
    tmp_path: Path, tiny_backbone: Path, release: ReleaseRanker, records: Records
) -> None:
    torch.save(release.state_dict(), tmp_path / "best_model.pt")
    records.save(tmp_path / "records.parquet")
    folder = str(tmp_path / "checkpoint")
    assert (
        main(
            [
                "import-release",
                str(tmp_path / "best_model.pt"),
                "--backbone",
                str(tiny_backbone),
                "--out",
                folder,
                "--max-tokens",
                "32",
            ]
        )
        == 0
    )
    assert read_checkpoint(Path(folder)).card.calibration is None
    assert (
        main(
            [
                "calibrate",
                folder,
                "--records",
                str(tmp_path / "records.parquet"),
                "--similarity",
                "0",
                "--ngram-buckets",
                "1024",
            ]
        )
        == 0
    )
    finished = read_checkpoint(Path(folder))
    assert finished.card.calibration is not None
    assert finished.ngram_weights is not None
    assert finished.ngram_weights.shape == (ngram.weight_count(1024),)
    assert trainer("evaluate", folder, "--records", tmp_path / "records.parquet") == 0


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda state: {k: v for k, v in state.items() if "pooler" not in k}, "without the pooler cannot be converted"),
        (lambda state: {k: v for k, v in state.items() if "layer.1" not in k}, "lacks 16 encoder weights"),
        (lambda state: {k: v for k, v in state.items() if "fc" not in k}, "found nothing"),
        (lambda state: {**state, "extra.weight": torch.zeros(1, 32)}, "expected one linear layer"),
        (lambda state: {**state, "fc.weight": torch.zeros(1, 16)}, "does not fit"),
        (lambda state: {"a": torch.zeros(1)}, "0 encoders"),
        (lambda state: {"epoch": 3}, "dictionary of tensors"),
    ],
)
def test_other_files_are_refused_by_name(
    tmp_path: Path, tiny_backbone: Path, release: ReleaseRanker, break_it, message: str
) -> None:  # type: ignore[no-untyped-def]
    torch.save(break_it(release.state_dict()), tmp_path / "best_model.pt")
    with pytest.raises(CheckpointError, match=message):
        import_release(tmp_path / "best_model.pt", str(tiny_backbone), tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("false",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, tiny_backbone: Path) -> None:
    torch.save({"x": Malicious()}, tmp_path / "best_model.pt")
    with pytest.raises(CheckpointError, match="plain tensors"):
        import_release(tmp_path / "best_model.pt", str(tiny_backbone), tmp_path / "checkpoint")


# Checkpoints that are not


def test_a_folder_without_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no ranker\.json"):
        read_checkpoint(tmp_path)


def test_a_backbone_that_does_not_exist_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], records: Records
) -> None:
    records.save(tmp_path / "r.parquet")
    code = main(
        [
            "train",
            "--records",
            str(tmp_path / "r.parquet"),
            "--out",
            str(tmp_path / "run"),
            "--backbone",
            str(tmp_path / "none"),
            "--similarity",
            "0",
        ]
    )
    assert code == 1
    assert "trainer: cannot load" in capsys.readouterr().err


def test_max_tokens_beyond_the_backbone_is_refused(tiny_backbone: Path) -> None:
    with pytest.raises(CheckpointError, match="more than the 64 positions"):
        Ranker.load(tiny_backbone, 128)


def test_prepare_writes_records_another_run_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "Why?", "a": "because of this"}\n{"q": "How?", "a": "so"}\n')
    out = tmp_path / "records.parquet"
    assert (
        main(
            [
                "prepare",
                "--source",
                str(tmp_path / "rows.jsonl"),
                "--prompt-column",
                "q",
                "--response-column",
                "a",
                "--length-unit",
                "words",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert "2 records, 2 prompts, 1 models" in capsys.readouterr().out
    assert LocalSource(out).load().response_tokens.tolist() == [3.0, 1.0]


def test_a_finished_run_is_finished_again_without_training(
    tmp_path: Path, tiny_run: Path, tiny_backbone: Path, records: Records
) -> None:
    """As after a failure between training and the checkpoint: nothing is trained twice, and nothing is lost."""
    shutil.copytree(tiny_run, tmp_path / "run")
    first = read_checkpoint(tmp_path / "run" / "checkpoint")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    recipe = Recipe(name="tiny", config=tiny_config(tiny_backbone), train=(), length_tokenizer="made up", licence="Apache-2.0")
    run(recipe, records, tmp_path / "run", command="pytest")
    again = read_checkpoint(tmp_path / "run" / "checkpoint")
    assert again.card.training == first.card.training
    assert again.card.metrics == first.card.metrics


@pytest.mark.parametrize("evaluations", [3, 4])
def test_a_run_stopped_right_after_an_epoch_goes_on(
    tmp_path: Path, tiny_backbone: Path, records: Records, monkeypatch: pytest.MonkeyPatch, evaluations: int
) -> None:
    config = tiny_config(tiny_backbone, epochs=2, evaluations_per_epoch=evaluations)
    ranker = Ranker.load(tiny_backbone, 32)
    data = training_set(config, ranker, records)
    real, losses = loop.margin_ranking_loss, 0
    steps = len(loop._batches(config, data, 0))

    def stop_at_the_second_epoch(*arguments: object, **options: object) -> torch.Tensor:
        nonlocal losses
        losses += 1
        if losses == steps + 1:
            raise StopAfter
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "margin_ranking_loss", stop_at_the_second_epoch)
    with pytest.raises(StopAfter):
        loop.train(config, data, ranker, tmp_path)
    monkeypatch.setattr(loop, "margin_ranking_loss", real)
    ranker = Ranker.load(tiny_backbone, 32)
    progress = loop.train(config, data, ranker, tmp_path)
    assert progress.step == steps + len(loop._batches(config, data, 1))
    assert len(progress.history) == len({entry["step"] for entry in progress.history}) == 2 * evaluations


def test_a_state_between_its_two_renames_is_found(
    tmp_path: Path, tiny_run: Path, tiny_backbone: Path, records: Records
) -> None:
    shutil.copytree(tiny_run / "state", tmp_path / "state")
    (tmp_path / "state" / "last").rename(tmp_path / "state" / "previous")
    config = tiny_config(tiny_backbone)
    ranker = Ranker.load(tiny_backbone, 32)
    progress = loop.train(config, training_set(config, ranker, records), ranker, tmp_path / "state")
    assert progress.step == read_checkpoint(tiny_run / "checkpoint").card.training["steps"]


def test_a_run_folder_of_other_data_is_refused(tmp_path: Path, tiny_run: Path, tiny_backbone: Path) -> None:
    shutil.copytree(tiny_run / "state", tmp_path / "state")
    config = tiny_config(tiny_backbone)
    ranker = Ranker.load(tiny_backbone, 32)
    with pytest.raises(ConfigError, match="training data"):
        loop.train(config, training_set(config, ranker, make_records(400, seed=5)), ranker, tmp_path / "state")


def test_a_folder_that_is_no_checkpoint_is_not_overwritten(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="not overwriting it"):
        write_checkpoint(tmp_path, read_checkpoint(tiny_checkpoint))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    write_checkpoint(tmp_path / "new", read_checkpoint(tiny_checkpoint))
    write_checkpoint(tmp_path / "new", read_checkpoint(tiny_checkpoint))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "thesis.txt"]


def test_a_diverging_run_says_so(tmp_path: Path, tiny_backbone: Path, records: Records) -> None:
    config = tiny_config(tiny_backbone, learning_rate=1e9, clip_norm=0.0)
    ranker = Ranker.load(tiny_backbone, 32)
    with pytest.raises(TrainerError, match="lower the learning rate"):
        loop.train(config, training_set(config, ranker, records), ranker, tmp_path)


def test_a_missing_zero_shot_file_is_noticed_before_training(tmp_path: Path, tiny_backbone: Path, records: Records) -> None:
    (tmp_path / "recipe.toml").write_text(recipe_text(tiny_backbone))
    recipe = read_recipe(tmp_path / "recipe.toml", tmp_path)
    with pytest.raises(DataError, match=r"other\.parquet: no such file"):
        run(recipe, records, tmp_path / "run", command="")
    assert not (tmp_path / "run").exists()


def test_two_processes_train_one_ranker(tmp_path: Path, tiny_backbone: Path, records: Records) -> None:
    """Accelerate with two CPU processes: each encodes its half of the batches, one writes the checkpoint."""
    records.save(tmp_path / "records.parquet")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer", "train"]
    command += [
        "--records",
        str(tmp_path / "records.parquet"),
        "--out",
        str(tmp_path / "run"),
        "--backbone",
        str(tiny_backbone),
    ]
    command += ["--max-tokens", "32", "--batch-prompts", "8", "--similarity", "0", "--ngram-buckets", "1024", "--epochs", "3"]
    command += ["--learning-rate", "3e-3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    card = read_checkpoint(tmp_path / "run" / "checkpoint").card
    assert card.metrics["test"]["all"]["tau_b"] > 0.5
    # Both halves count, and a step of two processes encodes two batches.
    assert card.training["encoder_forwards"] > card.metrics["prompts"]["train"] * 3 * 0.9
    assert card.training["steps"] <= card.metrics["prompts"]["train"] * 3 / 16 + 3
