"""Made once per session, offline: a small corpus, a tiny backbone, a trained checkpoint and its bundle."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import make_records, tiny_config
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from exporter.export import export_bundle
from exporter.precision import PRECISIONS
from trainer.recipe import Recipe
from trainer.records import Records
from trainer.run import run


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> None:
    # A suite started in the background by a shell inherits that SIGINT is ignored, and so would every program that it interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    # Two threads on tensors this small only wait for each other, and sums stay the same from run to run.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def records() -> Records:
    return make_records(400)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory, records: Records) -> Path:
    """A two-layer BERT with random weights and a WordPiece vocabulary of the corpus, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("backbone")
    # Written by hand, not learned: learning breaks ties differently from run to run.
    characters = [chr(code) for code in range(33, 127)]
    words = sorted({word for prompt in records.prompt for word in re.findall(r"[a-z]+", prompt.lower())})
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{one}" for one in characters), *words]
    pieces = BertWordPieceTokenizer(vocab={entry: number for number, entry in enumerate(dict.fromkeys(entries))})
    tokenizer = BertTokenizerFast(tokenizer_object=pieces._tokenizer)
    torch.manual_seed(1)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id,
            num_labels=1,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, records: Records) -> Path:
    """A finished training run; its checkpoint is in `checkpoint/`. Do not change it."""
    out = tmp_path_factory.mktemp("run")
    recipe = Recipe(name="tiny", config=tiny_config(tiny_backbone), train=(), length_tokenizer="made up", licence="Apache-2.0")
    run(recipe, records, out, command="pytest")
    return out


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_run: Path) -> Path:
    return tiny_run / "checkpoint"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The checkpoint's fp32 bundle. Do not change it."""
    out = tmp_path_factory.mktemp("bundles") / "fp32"
    export_bundle(tiny_checkpoint, out, PRECISIONS["fp32"])
    return out


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
