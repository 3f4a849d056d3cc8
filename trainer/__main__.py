"""`python -m trainer`: flags to calls, no logic."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path

from trainer.config import TrainConfig
from trainer.errors import ConfigError, TrainerError
from trainer.lengths import UNITS, length_counter
from trainer.local import LocalSource
from trainer.recipe import Recipe, RecordSource, read_recipe
from trainer.records import Records


def main(arguments: list[str] | None = None) -> int:
    # The tokenizer is called before and after worker threads exist; without this it warns at every fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    flags = _parser().parse_args(arguments)
    command = shlex.join(["python", "-m", "trainer", *(arguments if arguments is not None else sys.argv[1:])])
    try:
        flags.call(flags, command)
    except TrainerError as error:
        print(f"trainer: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train rankers of prompts by response length.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    prepare = commands.add_parser("prepare", help="a data set, from the hub or local files, to records in Parquet")
    prepare.add_argument(
        "--source", required=True, help="alpaca, code, lmsys, math (the reference release's sets) or a local file"
    )
    prepare.add_argument("--out", type=Path, required=True)
    prepare.add_argument("--length-unit", choices=UNITS, default="tokens")
    prepare.add_argument("--length-tokenizer", help="Hugging Face name or folder; needed when texts are counted in tokens")
    prepare.add_argument("--limit", type=int, help="at most this many prompts of a hub set")
    _add_columns(prepare)
    prepare.set_defaults(call=_prepare)

    pairs = commands.add_parser("pairs", help="records to a pair file of the reference release's format, training part only")
    pairs.add_argument("--records", type=Path, required=True)
    pairs.add_argument("--out", type=Path, required=True)
    pairs.add_argument("--per-prompt", type=int, default=10, help="random partners drawn for each prompt (default 10)")
    _add_config(pairs)
    pairs.set_defaults(call=_pairs)

    train = commands.add_parser("train", help="records or a recipe to a checkpoint; goes on where a killed run stood")
    data = train.add_mutually_exclusive_group(required=True)
    data.add_argument("--records", type=Path, nargs="+")
    data.add_argument("--recipe", type=Path)
    train.add_argument("--data", type=Path, default=Path(), help="folder that the recipe's paths are relative to")
    train.add_argument("--out", type=Path, required=True, help="run folder; the checkpoint goes to OUT/checkpoint")
    train.add_argument("--pair-file", type=Path, help="learn from these pairs instead of all pairs in a batch")
    start = train.add_mutually_exclusive_group()
    start.add_argument("--start", type=Path, help="go on from this finished checkpoint, instead of from the backbone")
    start.add_argument("--backbone-folder", type=Path, help="a local copy of the backbone, where the hub is out of reach")
    train.add_argument("--name", help="name of the ranker (default: that of the recipe, or of the run folder)")
    train.add_argument(
        "--length-tokenizer", default="", help="what the records' lengths were counted with, if the records do not say"
    )
    _add_config(train)
    train.set_defaults(call=_train)

    calibrate = commands.add_parser("calibrate", help="give a checkpoint the calibration and cheap scorer of these records")
    calibrate.add_argument("checkpoint", type=Path)
    calibrate.add_argument("--records", type=Path, nargs="+", required=True)
    calibrate.add_argument(
        "--length-tokenizer", default="", help="what the lengths were counted with, if the records do not say"
    )
    _add_config(calibrate)
    calibrate.set_defaults(call=_calibrate)

    evaluate = commands.add_parser("evaluate", help="tau-b and pair accuracy of a checkpoint on records, as JSON")
    evaluate.add_argument("checkpoint", type=Path)
    evaluate.add_argument("--records", type=Path, nargs="+", required=True)
    evaluate.add_argument("--min-gap", type=float, default=0.2)
    evaluate.set_defaults(call=_evaluate)

    release = commands.add_parser("import-release", help="convert a best_model.pt of the reference release to a checkpoint")
    release.add_argument("state_file", type=Path)
    release.add_argument("--backbone", required=True, help="such as bert-base-uncased; name or folder")
    release.add_argument("--out", type=Path, required=True)
    release.add_argument("--max-tokens", type=int, default=128)
    release.set_defaults(call=_import_release)
    return parser


def _add_columns(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("columns of a local file")
    group.add_argument("--prompt-column", default="prompt")
    group.add_argument("--messages-column", help="conversations, lists of role and content, instead of prompts")
    group.add_argument("--tokens-column", default="response_tokens")
    group.add_argument("--response-column", help="count these texts instead of reading --tokens-column")
    group.add_argument("--model-column")
    group.add_argument("--weight-column")
    group.add_argument("--prompts-path", type=Path, help="second file that holds the prompts")
    group.add_argument("--join-column", help="key that both files have")
    group.add_argument("--drop-column", help="leave out rows where this is true")


def _add_config(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings (see trainer/config.py; they override a recipe's)")
    for field in fields(TrainConfig):
        group.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), dest=f"config_{field.name}")


def _config_of(flags: argparse.Namespace, base: TrainConfig) -> TrainConfig:
    given = {field.name: getattr(flags, f"config_{field.name}") for field in fields(TrainConfig)}
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def _load(paths: list[Path]) -> Records:
    """Records written by `prepare`, or any file with the columns of the contract."""
    return Records.concatenate([LocalSource.of_records(path).load() for path in paths])


def _prepare(flags: argparse.Namespace, command: str) -> None:
    from trainer.hub import HUB_SOURCES

    if flags.source in HUB_SOURCES:
        counter = length_counter(flags.length_unit, flags.length_tokenizer)
        records = HUB_SOURCES[flags.source].load(counter, limit=flags.limit)
    else:
        records = RecordSource(
            LocalSource(
                Path(flags.source),
                prompt_column=flags.prompt_column,
                messages_column=flags.messages_column,
                tokens_column=flags.tokens_column,
                response_column=flags.response_column,
                model_column=flags.model_column,
                weight_column=flags.weight_column,
                prompts_path=flags.prompts_path,
                join_column=flags.join_column,
                drop_column=flags.drop_column,
            ),
            length_unit=flags.length_unit,
            length_tokenizer=flags.length_tokenizer,
        ).load()
    records.save(flags.out)
    print(f"{len(records):,} records, {len(set(records.prompt)):,} prompts, {len(set(records.model))} models → {flags.out}")


def _pairs(flags: argparse.Namespace, command: str) -> None:
    from trainer.model_effects import to_examples
    from trainer.pairs import sampled_pairs, write_pair_file
    from trainer.run import split_examples

    config = _config_of(flags, TrainConfig())
    examples = split_examples(to_examples(_load([flags.records]), seed=config.seed), config).train
    longer, shorter = sampled_pairs(
        examples.typical_tokens, per_prompt=flags.per_prompt, min_gap=config.min_gap, seed=config.seed
    )
    chosen = ((examples.prompt[a], examples.prompt[b]) for a, b in zip(longer, shorter, strict=True))
    print(f"{write_pair_file(flags.out, chosen, seed=config.seed):,} pairs of {len(examples):,} prompts → {flags.out}")


def _train(flags: argparse.Namespace, command: str) -> None:
    from trainer.pairs import read_pair_file
    from trainer.report import REPORT_FILE
    from trainer.run import run
    from trainer.start import start_from

    if flags.recipe is not None:
        recipe = read_recipe(flags.recipe, flags.data)
        records = recipe.records()
    else:
        recipe = Recipe(name=flags.out.name, config=TrainConfig.for_own_data(), train=())
        records = _load(flags.records)
    if flags.start is not None:
        recipe = start_from(flags.start, recipe)
    config = _config_of(flags, recipe.config)
    if flags.pair_file is not None:
        config = replace(config, pairs="file")
    elif config.pairs == "file":
        raise ConfigError("pairs = file needs --pair-file")
    recipe = replace(
        recipe,
        config=config,
        name=flags.name or recipe.name,
        length_tokenizer=flags.length_tokenizer or recipe.length_tokenizer,
    )
    pairs = read_pair_file(flags.pair_file) if flags.pair_file is not None else None
    metrics = run(recipe, records, flags.out, command=command, pairs=pairs, backbone_folder=flags.backbone_folder)
    if metrics:
        print((flags.out / REPORT_FILE).read_text(encoding="utf-8"))
        print(f"This report, with a plot: {flags.out / REPORT_FILE}. The ranker: {flags.out / 'checkpoint'}")


def _calibrate(flags: argparse.Namespace, command: str) -> None:
    from trainer.checkpoint import read_checkpoint, write_checkpoint
    from trainer.model_card import write_model_card
    from trainer.model_effects import to_examples
    from trainer.run import finish, split_examples

    checkpoint = read_checkpoint(flags.checkpoint)
    records = _load(flags.records)
    # The split the ranker was trained with: calibrating on what it has learned would flatter it.
    trained_with = TrainConfig.from_mapping({**checkpoint.card.config, "max_tokens": checkpoint.card.max_tokens})
    config = _config_of(flags, trained_with)
    card = replace(
        checkpoint.card, length_tokenizer=flags.length_tokenizer or records.length_label, calibration_command=command
    )
    parts = split_examples(to_examples(records, seed=config.seed), config)
    finished = finish(checkpoint.ranker, parts, records, config, card)
    write_checkpoint(flags.checkpoint, finished)
    write_model_card(flags.checkpoint, finished.card, Recipe(name=card.name, config=config, train=()))
    print(json.dumps(finished.card.metrics, indent=2))


def _evaluate(flags: argparse.Namespace, command: str) -> None:
    from trainer.checkpoint import read_checkpoint
    from trainer.evaluate import metrics_by_source
    from trainer.model_effects import to_examples
    from trainer.ngram_fit import score_all

    checkpoint = read_checkpoint(flags.checkpoint)
    examples = to_examples(_load(flags.records))
    token_ids = checkpoint.ranker.tokenize(examples.prompt)
    scored = {"encoder": checkpoint.ranker.score(token_ids, progress="scoring")}
    if checkpoint.ngram_weights is not None:
        scored["ngram"] = score_all(token_ids, checkpoint.ngram_weights)
    print(
        json.dumps(
            {
                tier: metrics_by_source(scores, examples.typical_tokens, examples.source, min_gap=flags.min_gap)
                for tier, scores in scored.items()
            },
            indent=2,
        )
    )


def _import_release(flags: argparse.Namespace, command: str) -> None:
    from trainer.release import import_release

    import_release(flags.state_file, flags.backbone, flags.out, max_tokens=flags.max_tokens, command=command)
    print(f"{flags.state_file} → {flags.out}; give it a calibration with `python -m trainer calibrate {flags.out} --records …`")


if __name__ == "__main__":
    sys.exit(main())
