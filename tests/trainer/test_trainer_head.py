"""Heads that are wider while a ranker learns than in its checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import tiny_config
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, RobertaConfig, RobertaForSequenceClassification

from trainer.checkpoint import read_checkpoint
from trainer.head import set_outputs
from trainer.ranker import Ranker
from trainer.recipe import Recipe
from trainer.records import Records
from trainer.run import run

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}


def test_a_wider_head_says_the_same_first_and_can_be_cut_again(tiny_backbone: Path) -> None:
    ranker = Ranker.load(tiny_backbone, 32)
    prompts = ranker.tokenize(["a short one", "and a prompt that is longer than that"])
    before = ranker.score(prompts)
    set_outputs(ranker.model, 3)
    outputs = ranker.model.eval()(**ranker.collate(prompts)).logits
    assert outputs.shape == (2, 3)
    assert outputs[:, 0].tolist() == pytest.approx(before.tolist())
    assert outputs[:, 1].abs().min() > 0  # the new ones are drawn, not zero
    ranker.keep_first_output()
    assert ranker.model.config.num_labels == 1
    assert np.array_equal(ranker.score(prompts), before)


def test_a_head_inside_a_module_of_its_own_is_found() -> None:
    """RoBERTa's is classifier.out_proj, behind another linear layer."""
    model = RobertaForSequenceClassification(RobertaConfig(**TINY, num_labels=1))
    set_outputs(model, 2)
    assert (model.classifier.out_proj.out_features, model.classifier.dense.out_features) == (2, 8)


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="BertModel has no linear head of 5 outputs"):
        set_outputs(BertModel(BertConfig(**TINY, num_labels=5)), 2)


def test_a_ranker_trained_with_a_spread_is_saved_without_it_and_goes_on_with_one(
    tiny_backbone: Path, records: Records, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    settings = {"loss": "heteroscedastic", "epochs": 1}
    run(Recipe("first", tiny_config(tiny_backbone, **settings), ()), records, first, command="a test")
    run(Recipe("second", tiny_config(first / "checkpoint", **settings), ()), records, second, command="a test")
    for folder in (first, second):
        trained = load_file(folder / "state" / "best.safetensors")["classifier.weight"]
        saved = read_checkpoint(folder / "checkpoint").ranker.model
        assert (len(trained), saved.config.num_labels) == (2, 1)
        assert torch.allclose(trained[:1], saved.classifier.weight, rtol=1e-3)  # the checkpoint's weights are 16-bit floats
