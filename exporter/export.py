"""The whole way from checkpoint to bundle, in order."""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from exporter.bundle_writer import bundle_folder, to_calibration, write_manifest
from exporter.errors import ExportError
from exporter.graph import Graph, export_graph
from exporter.parity import check_parity, probe
from exporter.precision import Precision
from exporter.probe_prompts import GOLDEN_PROMPTS
from pars import ngram
from pars.text import MAX_CHARS
from pars.v1 import bundle_pb2
from sidecar import golden
from sidecar.bundle import FORMAT_VERSION, MODEL_FILE, NGRAM_FILE, TOKENIZER_FILE, Bundle, open_bundle
from sidecar.encoder import open_encoder
from sidecar.ngram_scorer import NgramScorer
from sidecar.scorer import Scorer
from sidecar.tokenization import PromptTokenizer
from trainer.checkpoint import Checkpoint, read_checkpoint

MAKERS = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime")


def export_bundle(checkpoint_folder: Path, out: Path, precision: Precision) -> bundle_pb2.BundleManifest:
    """Export, prove and write; returns the manifest as the serving code read it back. Raises ExportError and what reading the
    checkpoint raises; nothing is left at `out` unless everything held."""
    checkpoint = read_checkpoint(checkpoint_folder)
    if checkpoint.card.calibration is None:
        raise ExportError(
            f"{checkpoint_folder} has no calibration; run `python -m trainer calibrate {checkpoint_folder} --records …` first"
        )
    reference = probe(checkpoint.ranker)
    with bundle_folder(out) as folder:
        with tempfile.TemporaryDirectory() as work:
            graph = export_graph(checkpoint_folder, precision, Path(work))
            shutil.copyfile(graph.path, folder / MODEL_FILE)
        _copy_tokenizer(checkpoint_folder, folder)
        if checkpoint.ngram_weights is not None:
            np.save(folder / NGRAM_FILE, checkpoint.ngram_weights)
        manifest = _describe(checkpoint, graph, precision)
        unproven = Bundle(folder=folder, manifest=manifest, ngram_weights=checkpoint.ngram_weights)
        scorer = open_encoder(unproven, "cpu")
        manifest.made_with.update({package: version(package) for package in (*MAKERS, *precision.run_by)})
        manifest.parity.CopyFrom(check_parity(checkpoint.ranker, reference, unproven, scorer, precision))
        manifest.scores_depend_on_batch = manifest.parity.max_batch_difference > manifest.parity.batch_difference_tolerance
        manifest.golden_tolerance = precision.golden_tolerance * reference.spread
        _record_golden(unproven, scorer)
        write_manifest(folder, manifest)
        # The last proof: what a sidecar does at start, on the files as they are.
        opened = open_bundle(folder)
        golden.replay(opened, open_encoder(opened, "cpu"), "score")
        if opened.ngram_weights is not None:
            golden.replay(opened, NgramScorer(opened.ngram_weights), "ngram_score")
    return opened.manifest


def _copy_tokenizer(checkpoint_folder: Path, folder: Path) -> None:
    path = checkpoint_folder / TOKENIZER_FILE
    if not path.is_file():
        raise ExportError(f"{checkpoint_folder} has no {TOKENIZER_FILE}: only fast tokenizers can be served")
    shutil.copyfile(path, folder / TOKENIZER_FILE)


def _describe(checkpoint: Checkpoint, graph: Graph, precision: Precision) -> bundle_pb2.BundleManifest:
    card = checkpoint.card
    assert card.calibration is not None
    manifest = bundle_pb2.BundleManifest(
        format_version=FORMAT_VERSION,
        model_name=card.name,
        precision=precision.proto,
        input=bundle_pb2.ModelInput(
            max_tokens=card.max_tokens,
            max_chars=MAX_CHARS,
            pad_token_id=checkpoint.ranker.tokenizer.pad_token_id,
            input_names=graph.inputs,
            output_name=graph.output,
        ),
        encoder_calibration=to_calibration(card.calibration, card.length_tokenizer),
        licence=card.licence,
        data_statement=card.data_statement,
    )
    if checkpoint.ngram_weights is not None:
        if card.ngram_calibration is None:
            raise ExportError("the checkpoint has a cheap scorer but no calibration for it")
        manifest.ngram.path = NGRAM_FILE
        manifest.ngram.bucket_count = len(checkpoint.ngram_weights) - ngram.DENSE_COUNT
        manifest.ngram.calibration.CopyFrom(to_calibration(card.ngram_calibration, card.length_tokenizer))
    return manifest


def _record_golden(bundle: Bundle, scorer: Scorer) -> None:
    tokenizer = PromptTokenizer.for_bundle(bundle)
    for prompt in GOLDEN_PROMPTS:
        tokenized = tokenizer.encode([prompt])
        recorded = bundle.manifest.golden_prompts.add(prompt=prompt, score=float(scorer.score(tokenized)[0]))
        if bundle.ngram_weights is not None:
            recorded.ngram_score = float(NgramScorer(bundle.ngram_weights).score(tokenized)[0])
