"""Checkpoint to bundle: what is written is what was trained, and what fails leaves nothing behind."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from corpus import tiny_config
from onnx import TensorProto, helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import OPTConfig, OPTForSequenceClassification, PreTrainedTokenizerFast

from exporter import export
from exporter.__main__ import main
from exporter.errors import ExportError, GraphError, ParityError
from exporter.export import export_bundle
from exporter.graph import check_graph
from exporter.parity import check_parity, judge, probe
from exporter.precision import DEFAULT_PRECISION, PRECISIONS
from exporter.probe_prompts import GOLDEN_PROMPTS, PROBE_PROMPTS
from pars import ngram
from pars.v1 import bundle_pb2
from sidecar.bundle import Bundle, open_bundle
from sidecar.encoder import open_encoder
from sidecar.session import OnnxScorer
from sidecar.tokenization import PromptTokenizer
from trainer.checkpoint import read_checkpoint, write_checkpoint
from trainer.evaluate import rank_metrics
from trainer.recipe import Recipe
from trainer.records import Records
from trainer.run import run


def serve_scores(bundle: Bundle, prompts: list[str]) -> np.ndarray:
    scorer = open_encoder(bundle, "cpu")
    return scorer.score(PromptTokenizer.for_bundle(bundle).encode(prompts)).astype(np.float64)


def test_the_bundle_scores_what_the_checkpoint_scores(tiny_checkpoint: Path, tiny_bundle: Path, records: Records) -> None:
    checkpoint, bundle = read_checkpoint(tiny_checkpoint), open_bundle(tiny_bundle)
    trained = checkpoint.ranker.score(checkpoint.ranker.tokenize(records.prompt))
    np.testing.assert_allclose(serve_scores(bundle, records.prompt), trained, atol=1e-5)
    np.testing.assert_array_equal(bundle.ngram_weights, checkpoint.ngram_weights)


def test_the_manifest_says_what_a_caller_must_know(tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    card = read_checkpoint(tiny_checkpoint).card
    manifest = open_bundle(tiny_bundle).manifest
    assert manifest.model_name == card.name == "tiny"
    assert manifest.licence == "Apache-2.0"
    assert manifest.input.max_tokens == 32
    assert manifest.input.input_names == ["input_ids", "attention_mask", "token_type_ids"]
    assert manifest.precision == bundle_pb2.PRECISION_FP32
    assert not manifest.scores_depend_on_batch
    assert manifest.parity.prompt_count == len(PROBE_PROMPTS)
    assert manifest.parity.kendall_tau_b > 0.9999
    assert manifest.parity.max_batch_difference <= manifest.parity.batch_difference_tolerance
    assert [golden.prompt for golden in manifest.golden_prompts] == list(GOLDEN_PROMPTS)
    assert manifest.encoder_calibration.scores == pytest.approx(card.calibration.scores)
    assert manifest.ngram.bucket_count == 1024
    assert manifest.encoder_calibration.length_tokenizer == "made up"
    assert {"torch", "optimum", "onnxruntime"} <= set(manifest.made_with)


def test_the_default_is_the_reference() -> None:
    assert DEFAULT_PRECISION == "fp32"


@pytest.mark.parametrize("name", ["int8", "fp16", "bf16"])
def test_reduced_precisions_keep_the_order_alone_and_among_neighbours(
    tmp_path: Path, tiny_checkpoint: Path, tiny_bundle: Path, records: Records, name: str
) -> None:
    # Rounding weighs more in a model of 32 units than in a real one; what is tested here is that it is measured and recorded.
    lenient = replace(PRECISIONS[name], score_tolerance=1.0, tau_b_floor=0.5, golden_tolerance=1.0)
    manifest = export_bundle(tiny_checkpoint, tmp_path / "bundle", lenient)
    assert manifest.precision == PRECISIONS[name].proto
    bundle = open_bundle(tmp_path / "bundle")
    order = rank_metrics(
        serve_scores(bundle, records.prompt), serve_scores(open_bundle(tiny_bundle), records.prompt), min_gap=0.0
    )
    assert order.tau_b > {"int8": 0.7, "fp16": 0.95, "bf16": 0.8}[name]
    depends = manifest.parity.max_batch_difference > manifest.parity.batch_difference_tolerance
    assert manifest.scores_depend_on_batch == depends
    if name == "bf16":  # which kernel multiplies depends on the shape, and on the CPU
        assert manifest.made_with["openvino"]
    else:
        assert not depends, "a token's range is its own"
    if name == "int8":
        assert (tmp_path / "bundle" / "model.onnx").stat().st_size < (tiny_bundle / "model.onnx").stat().st_size


def test_equal_checkpoints_give_equal_ids(tmp_path: Path, tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    again = export_bundle(tiny_checkpoint, tmp_path / "again", PRECISIONS["fp32"])
    assert again.bundle_id == open_bundle(tiny_bundle).bundle_id


def test_a_failed_export_leaves_the_old_bundle(
    tmp_path: Path, tiny_checkpoint: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, out)

    def refuse(*_: object) -> None:
        raise ParityError("made to fail")

    monkeypatch.setattr(export, "check_parity", refuse)
    with pytest.raises(ParityError, match="made to fail"):
        export_bundle(tiny_checkpoint, out, PRECISIONS["fp32"])
    assert open_bundle(out).bundle_id == open_bundle(tiny_bundle).bundle_id
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"], "no temporary folder stays behind"


def test_a_folder_that_is_no_bundle_is_not_overwritten(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main([str(tiny_checkpoint), "--out", str(tmp_path)]) == 1
    assert "not overwriting it" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_web_application_is_not_taken_for_a_bundle(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "app", "icons": []}')
    (tmp_path / "index.js").write_text("app()")
    with pytest.raises(ExportError, match="not overwriting it"):
        export_bundle(tiny_checkpoint, tmp_path, PRECISIONS["fp32"])
    assert (tmp_path / "index.js").exists()


def test_a_bundle_with_something_of_the_users_in_it_stays(tmp_path: Path, tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="not overwriting it"):
        export_bundle(tiny_checkpoint, tmp_path / "bundle", PRECISIONS["fp32"])


def test_a_checkpoint_without_calibration_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint)
    write_checkpoint(tmp_path / "bare", replace(checkpoint, card=replace(checkpoint.card, calibration=None)))
    with pytest.raises(ExportError, match="python -m trainer calibrate"):
        export_bundle(tmp_path / "bare", tmp_path / "bundle", PRECISIONS["fp32"])


def test_a_checkpoint_without_cheap_scorer_exports_without_one(tmp_path: Path, tiny_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint)
    write_checkpoint(tmp_path / "bare", replace(checkpoint, ngram_weights=None))
    manifest = export_bundle(tmp_path / "bare", tmp_path / "bundle", PRECISIONS["fp32"])
    assert not manifest.HasField("ngram")
    assert not (tmp_path / "bundle" / "ngram.npy").exists()


def test_parity_notices_other_weights(tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    checkpoint, bundle = read_checkpoint(tiny_checkpoint), open_bundle(tiny_bundle)
    with torch.no_grad():
        checkpoint.ranker.model.classifier.weight.mul_(1.01)
    scorer = OnnxScorer(bundle, provider="cpu")
    with pytest.raises(ParityError, match="differs from PyTorch"):
        check_parity(checkpoint.ranker, probe(checkpoint.ranker), bundle, scorer, PRECISIONS["fp32"])


def test_parity_notices_another_tokenizer(tmp_path: Path, tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    bundle = replace(open_bundle(tiny_bundle), folder=tmp_path / "bundle")
    tokenizer = json.loads((tmp_path / "bundle" / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None  # no lower-casing any more
    (tmp_path / "bundle" / "tokenizer.json").write_text(json.dumps(tokenizer))
    ranker = read_checkpoint(tiny_checkpoint).ranker
    with pytest.raises(ParityError, match="the serving tokenizer reads"):
        check_parity(ranker, probe(ranker), bundle, OnnxScorer(bundle, provider="cpu"), PRECISIONS["fp32"])


def test_parity_notices_a_shuffled_order() -> None:
    good = bundle_pb2.Parity(max_score_difference=0.1, score_tolerance=0.2, kendall_tau_b=0.95, kendall_tau_b_floor=0.9)
    judge(good)
    good.kendall_tau_b = float("nan")
    with pytest.raises(ParityError, match="the order agrees"):
        judge(good)


def test_a_constant_ranker_is_not_exported(tmp_path: Path, tiny_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        checkpoint.ranker.model.classifier.weight.zero_()
    write_checkpoint(tmp_path / "flat", checkpoint)
    with pytest.raises(ParityError, match="the same"):
        export_bundle(tmp_path / "flat", tmp_path / "bundle", PRECISIONS["fp32"])
    assert not (tmp_path / "bundle").exists()


def hand_made_graph(path: Path, *, inputs: dict[str, list[object]], output: str, shape: list[object]) -> Path:
    """A graph with these inputs and a Cast of the first as its output. Only its signature is looked at."""
    graph = helper.make_graph(
        [helper.make_node("Cast", [next(iter(inputs))], [output], to=TensorProto.FLOAT)],
        "made-by-hand",
        [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name, axes in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.mark.parametrize(
    ("inputs", "output", "shape", "message"),
    [
        ({"input_ids": ["b", "s"], "position_ids": ["b", "s"]}, "logits", ["b", 1], "wants the inputs"),
        ({"attention_mask": ["b", "s"]}, "logits", ["b", 1], "wants the inputs"),
        ({"input_ids": ["b", "s"]}, "scores", ["b", 1], "expected only logits"),
        ({"input_ids": ["b", 128]}, "logits", ["b", 1], "must both be dynamic"),
        ({"input_ids": ["b", "s"]}, "logits", ["b", 2], "expected one score per prompt"),
        ({"input_ids": ["b", "s"]}, "logits", [1, 1], "expected one score per prompt"),
    ],
)
def test_graphs_that_cannot_be_served_are_named(
    tmp_path: Path, inputs: dict[str, list[object]], output: str, shape: list[object], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        check_graph(hand_made_graph(tmp_path / "model.onnx", inputs=inputs, output=output, shape=shape))


@pytest.fixture(scope="session")
def opt_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OPT: a decoder that scores at its last real token, with a tokenizer without special tokens."""
    folder = tmp_path_factory.mktemp("opt")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={"<pad>": 0, **{byte: n + 1 for n, byte in enumerate(alphabet)}}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>")
    torch.manual_seed(2)
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=64,
        max_position_embeddings=64,
        pad_token_id=0,
        num_labels=1,
    )
    OPTForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_opt_like_ranker_goes_the_same_way(tmp_path: Path, opt_backbone: Path, records: Records) -> None:
    recipe = Recipe(name="opt", config=tiny_config(opt_backbone, max_tokens=48, epochs=1), train=())
    run(recipe, records, tmp_path / "run", command="pytest")
    manifest = export_bundle(tmp_path / "run" / "checkpoint", tmp_path / "bundle", PRECISIONS["fp32"])
    assert manifest.input.input_names == ["input_ids", "attention_mask"]
    assert manifest.ngram.bucket_count == 1024
    assert len(open_bundle(tmp_path / "bundle").ngram_weights) == ngram.weight_count(1024)
    lenient = replace(PRECISIONS["int8"], score_tolerance=1.0, tau_b_floor=0.5)
    in_8_bits = export_bundle(tmp_path / "run" / "checkpoint", tmp_path / "int8", lenient)
    assert not in_8_bits.scores_depend_on_batch
