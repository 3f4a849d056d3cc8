"""Checkpoint → bundle → scores, as the sidecar gives them. What is there already is not made again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import exporter
from benchmarks.quality.precision_sets import HeldOut
from exporter.export import export_bundle
from exporter.precision import PRECISIONS, Precision
from pars.v1 import bundle_pb2
from sidecar.bundle import MANIFEST_FILE, Bundle, open_bundle
from sidecar.encoder import open_encoder
from sidecar.scorer import Scorer, TokenizedPrompt
from sidecar.tokenization import PromptTokenizer

FloatArray = npt.NDArray[np.float64]

BATCH_PROMPTS = 8
DYNAMIC = "int8_dynamic"


def _one_range_for_the_batch(plain: Path, folder: Path) -> Path:
    from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

    quantizer = ORTQuantizer.from_pretrained(plain.parent, file_name=plain.name)
    quantizer.quantize(
        save_dir=folder,
        quantization_config=AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True),
        file_suffix="",
    )
    return folder / plain.name


COMPARED: Mapping[str, Precision] = {
    **PRECISIONS,
    # What int8 was before it had a range for each token: the runtime's own dynamic quantisation, per channel. Not exported any more.
    DYNAMIC: Precision(DYNAMIC, bundle_pb2.PRECISION_INT8_DYNAMIC, 0.6, 0.9, 0.6, _one_range_for_the_batch),
}


@dataclass(frozen=True)
class Scores:
    """One set by one bundle. alone: float[prompts], each in a batch of its own. batched: float[prompts], in batches of
    BATCH_PROMPTS neighbours in length."""

    alone: FloatArray
    batched: FloatArray


def bundle_in(precision: Precision, checkpoint: Path, work: Path) -> Bundle:
    """The checkpoint's bundle under `work`, exported unless this exporter exported this checkpoint there before."""
    folder = work / _fingerprint(checkpoint) / precision.name
    if not (folder / MANIFEST_FILE).is_file():
        export_bundle(checkpoint, folder, precision)
    return open_bundle(folder)


def score(bundle: Bundle, held_out: HeldOut, work: Path) -> Scores:
    """Score a set on the CPU, or take the scores that lie under `work`: equal bundle ids and equal prompts mean equal scores."""
    prompts = hashlib.sha256("\0".join(held_out.prompts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    path = work / f"scores-{bundle.manifest.bundle_id}-{prompts}.npz"
    if path.is_file():
        with np.load(path) as kept:
            return Scores(kept["alone"], kept["batched"])
    scorer, tokenized = open_encoder(bundle, "cpu"), PromptTokenizer.for_bundle(bundle).encode(held_out.prompts)
    scores = Scores(_in_batches(scorer, tokenized, 1), _in_batches(scorer, tokenized, BATCH_PROMPTS))
    coming = path.with_suffix(".coming.npz")
    np.savez(coming, alone=scores.alone, batched=scores.batched)
    coming.rename(path)
    return scores


def cpu_ms_per_prompt(bundles: Mapping[str, Bundle], prompts: Sequence[str], rounds: int) -> dict[str, dict[int, FloatArray]]:
    """CPU time of one thread for a prompt, in batches of 1 and of BATCH_PROMPTS: float[rounds] for each bundle and size.

    The bundles take turns within a round, so that each round's ratios are of the same minute. CPU time, not wall time: what else runs on
    the machine then counts only where it takes away cache.
    """
    sessions = {
        name: (open_encoder(bundle, "cpu"), PromptTokenizer.for_bundle(bundle).encode(prompts))
        for name, bundle in bundles.items()
    }
    spent = {name: {size: np.empty(rounds) for size in (1, BATCH_PROMPTS)} for name in bundles}
    for scorer, tokenized in sessions.values():
        _in_batches(scorer, tokenized, BATCH_PROMPTS)  # the first runs allocate
    for round_ in range(rounds):
        for name, (scorer, tokenized) in sessions.items():
            for size in (1, BATCH_PROMPTS):
                began_s = time.process_time()  # not of this thread: OpenVINO runs on its own
                _in_batches(scorer, tokenized, size)
                spent[name][size][round_] = (time.process_time() - began_s) * 1e3 / len(prompts)
    return spent


def _in_batches(scorer: Scorer, prompts: Sequence[TokenizedPrompt], size: int) -> FloatArray:
    scores = np.empty(len(prompts))
    for rows in _neighbours(prompts, size):
        scores[rows] = scorer.score([prompts[row] for row in rows])
    return scores


def _neighbours(prompts: Sequence[TokenizedPrompt], size: int) -> Iterator[npt.NDArray[np.int64]]:
    order = np.argsort([len(prompt.token_ids) for prompt in prompts], kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _fingerprint(checkpoint: Path) -> str:
    """Of everything a bundle is made from: the checkpoint's files and the code that exports them."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in (*sorted(checkpoint.iterdir()), *sorted(Path(exporter.__file__).parent.glob("*.py"))):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
