"""The loop and what surrounds it, on a tiny BERT: it learns, it resumes to the bit, its folders come back as written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import make_records, tiny_config

from pars import ngram
from trainer import loop
from trainer.__main__ import main
from trainer.batches import parts_of_similar_size
from trainer.checkpoint import read_checkpoint, write_checkpoint
from trainer.config import TrainConfig
from trainer.errors import CheckpointError, ConfigError, DataError, TrainerError
from trainer.losses.objective import Target
from trainer.model_effects import to_examples
from trainer.pairs import read_pair_file
from trainer.ranker import Ranker
from trainer.recipe import Recipe
from trainer.records import Records
from trainer.run import run, split_examples
from trainer.run import training_set as set_of


def trainer(*words: str | Path) -> int:
    """The command line, in this process."""
    return main([str(word) for word in words])


def training_set(config: TrainConfig, ranker: Ranker, records: Records) -> loop.TrainingSet:
    parts = split_examples(to_examples(records), config)
    return set_of(ranker, parts.train, parts.validation)


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
    real = loop.make_target

    def stop_in_the_second_epoch(*arguments: object, **options: object) -> Target:
        nonlocal seen
        seen += 1
        if seen == whole.step * 3 // 4:
            raise StopAfter
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "make_target", stop_in_the_second_epoch)
    with pytest.raises(StopAfter):
        loop.train(config, training_set(config, interrupted, records), interrupted, tmp_path / "killed")
    monkeypatch.setattr(loop, "make_target", real)

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


def test_runs_of_one_process_may_differ_in_precision(tmp_path: Path, tiny_backbone: Path, records: Records) -> None:
    """As on a CPU with AMX, where `auto` is bf16, after a run that asked for fp32."""
    for precision in ("fp32", "bf16"):
        config = tiny_config(tiny_backbone, precision=precision, epochs=1)
        ranker = Ranker.load(tiny_backbone, 32)
        assert loop.train(config, training_set(config, ranker, records), ranker, tmp_path / precision).best_tau_b > -1


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
    assert finished.stdout.startswith("# What run learned")
    assert f"{card.metrics['test']['all']['tau_b']:.3f}" in finished.stdout


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
    real, losses = loop.make_target, 0
    steps = len(loop._batches(config, data, 0))

    def stop_at_the_second_epoch(*arguments: object, **options: object) -> Target:
        nonlocal losses
        losses += 1
        if losses == steps + 1:
            raise StopAfter
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "make_target", stop_at_the_second_epoch)
    with pytest.raises(StopAfter):
        loop.train(config, data, ranker, tmp_path)
    monkeypatch.setattr(loop, "make_target", real)
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


def test_a_batch_encoded_in_parts_has_the_outputs_of_the_whole_in_its_own_order(tiny_backbone: Path, records: Records) -> None:
    ranker = Ranker.load(tiny_backbone, 32)
    ranker.model.eval()
    token_ids = ranker.tokenize([" ".join(records.prompt[:3]), *records.prompt[3:60], "a"] * 2)
    assert len(parts_of_similar_size([len(ids) for ids in token_ids])) > 1
    with torch.no_grad():
        whole, parts = (loop.encode(ranker.model, ranker, token_ids, may_split=split) for split in (False, True))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
