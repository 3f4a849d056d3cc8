"""A hand-made bundle: a graph of six nodes, a tokenizer of a few words, n-gram weights. Made in milliseconds, needs no trainer.

The score of a prompt is the sum of its tokens' weights, so tests know every score: `expected_score`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf import json_format
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from pars import ngram
from pars.v1 import bundle_pb2
from sidecar.bundle import FORMAT_VERSION, MANIFEST_FILE, MODEL_FILE, NGRAM_FILE, TOKENIZER_FILE, bundle_id_of

MAX_TOKENS = 16
MAX_CHARS = 200
BUCKETS = 64
WEIGHTS = {"[PAD]": 99.0, "[UNK]": 0.5, "[CLS]": 0.0, "[SEP]": 0.0, "short": -1.0, "long": 2.0, "very": 0.25, "write": 0.125}
"""Token → weight in the score. Padding is heavy, so that a forgotten mask shows; every value and sum is exact in float32."""

MakeGraph = Callable[[Path], None]


def expected_score(prompt: str) -> float:
    """The encoder's score of a prompt that is not cut."""
    return sum(WEIGHTS.get(word, WEIGHTS["[UNK]"]) for word in prompt.split())


def make_graph(path: Path, *, inputs: Sequence[str] = ("input_ids", "attention_mask"), output: str = "logits") -> None:
    """score[b, 1] = sum over s of weight[input_ids[b, s]] * attention_mask[b, s]."""
    table = numpy_helper.from_array(np.array(list(WEIGHTS.values()), dtype=np.float32), "weights")
    axis = numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["gathered"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["gathered", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis"], [output], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 1])],
        [table, axis],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def make_slow_graph(path: Path) -> None:
    """The same scores, but each token "short" in a batch takes the model some 0.1 s. Warm-up has none and stays fast."""
    turns_per_token = 200_000
    make_graph(path)
    model = onnx.load(path)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
            helper.make_node("Identity", ["carried"], ["carried_out"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried_out", TensorProto.FLOAT, None),
        ],
    )
    constants = {
        "slow_token": np.int64(list(WEIGHTS).index("short")),
        "turns_per_token": np.int64(turns_per_token),
        "true": np.bool_(True),
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in constants.items())
    model.graph.node[-1].output[0] = "sum"
    model.graph.node.extend(
        [
            helper.make_node("Equal", ["input_ids", "slow_token"], ["is_slow"]),
            helper.make_node("Cast", ["is_slow"], ["slow_ones"], to=TensorProto.INT64),
            helper.make_node("ReduceSum", ["slow_ones"], ["slow_count"], keepdims=0),
            helper.make_node("Mul", ["slow_count", "turns_per_token"], ["turns"]),
            helper.make_node("Loop", ["turns", "true", "sum"], ["logits"], body=body),
        ]
    )
    onnx.save(model, path)


def make_tokenizer(path: Path) -> None:
    """Words by whitespace, [CLS] and [SEP] around them; saved with padding to 32 and truncation at 4, as published ones are."""
    vocabulary = {token: index for index, token in enumerate(WEIGHTS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    tokenizer.enable_padding(length=32, pad_id=0)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(path))


def make_bundle(folder: Path, *, with_ngram: bool = True, graph: MakeGraph = make_graph, name: str = "tiny") -> Path:
    """Write a valid bundle and return its folder. Another name is another bundle id."""
    folder.mkdir(parents=True)
    graph(folder / MODEL_FILE)
    make_tokenizer(folder / TOKENIZER_FILE)
    names = [MODEL_FILE, TOKENIZER_FILE]
    golden = {"prompt": "write very long", "score": expected_score("write very long")}
    manifest: dict[str, Any] = {
        "formatVersion": FORMAT_VERSION,
        "modelName": name,
        "precision": "PRECISION_FP32",
        "input": {
            "maxTokens": MAX_TOKENS,
            "maxChars": MAX_CHARS,
            "padTokenId": 0,
            "inputNames": ["input_ids", "attention_mask"],
            "outputName": "logits",
        },
        "encoderCalibration": calibration(),
        "goldenPrompts": [golden],
        "goldenTolerance": 1e-4,
        "licence": "Apache-2.0",
    }
    if with_ngram:
        weights = np.linspace(-1, 1, ngram.weight_count(BUCKETS), dtype=np.float32)
        np.save(folder / NGRAM_FILE, weights)
        names.append(NGRAM_FILE)
        manifest["ngram"] = {"path": NGRAM_FILE, "bucketCount": BUCKETS, "calibration": calibration()}
        # [CLS] write very long [SEP]
        golden["ngramScore"] = float(np.float32(ngram.score(np.array([2, 7, 6, 5, 3]), weights)))
    manifest["files"] = [file_entry(folder / name) for name in names]
    write_manifest(folder, manifest)
    return folder


def calibration() -> dict[str, Any]:
    return {
        "scores": [-2.0, 0.0, 4.0],
        "quantiles": [0.0, 0.5, 1.0],
        "expectedTokens": [10.0, 100.0, 500.0],
        "expectedTokensP90": [20.0, 300.0, 900.0],
        "promptCount": 3,
        "lengthTokenizer": "words",
    }


def file_entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"path": path.name, "sha256": hashlib.sha256(content).hexdigest(), "sizeBytes": str(len(content))}


def read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text())
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any], *, sign: bool = True) -> None:
    """Write the manifest, with the id its content has unless `sign` is off."""
    content = dict(manifest)
    if sign:
        # Through the message, as the exporter does: its JSON writes floats in 32-bit shortest form.
        message = json_format.ParseDict(content, bundle_pb2.BundleManifest(), ignore_unknown_fields=True)
        known = json_format.MessageToDict(message)
        content = {**content, **known} if set(content) <= set(known) | {"bundleId"} else content
        content["bundleId"] = bundle_id_of(content)
    (folder / MANIFEST_FILE).write_text(json.dumps(content))


def rehash(folder: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed on purpose."""
    manifest = read_manifest(folder)
    manifest["files"] = [file_entry(folder / name) if file["path"] == name else file for file in manifest["files"]]
    write_manifest(folder, manifest)
