"""Checkpoint → ONNX graph, through Optimum; names, axes and shapes checked one after the other."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
from optimum.exporters.onnx import main_export

from exporter.errors import GraphError
from exporter.precision import Precision

FEEDABLE_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"


@dataclass(frozen=True)
class Graph:
    """An exported graph. inputs: int64[batch, sequence] each. output: float[batch, 1]."""

    path: Path
    inputs: tuple[str, ...]
    output: str


def export_graph(checkpoint: Path, precision: Precision, work: Path) -> Graph:
    """Export `checkpoint` into the empty folder `work` and convert it to `precision`. Raises GraphError."""
    plain_folder, converted_folder = work / "plain", work / "converted"
    converted_folder.mkdir(parents=True)
    with warnings.catch_warnings():
        # Tracing and its libraries warn by the page about their own future; what matters here is proven by parity afterwards.
        warnings.simplefilter("ignore")
        _export_plain(checkpoint, plain_folder)
        path = precision.convert(plain_folder / "model.onnx", converted_folder)
    inputs, output = check_graph(path)
    return Graph(path, inputs, output)


def _export_plain(checkpoint: Path, plain_folder: Path) -> None:
    try:
        # Optimum's own validation only warns when values differ; ours (parity) raises, so its is off.
        main_export(
            str(checkpoint),
            plain_folder,
            task="text-classification",
            library_name="transformers",
            device="cpu",
            do_validation=False,
        )
    except (ValueError, KeyError, RuntimeError) as error:
        raise GraphError(f"Optimum cannot export {checkpoint}: {str(error).splitlines()[0]}") from error


def check_graph(path: Path) -> tuple[tuple[str, ...], str]:
    """Names first, then axes, then shapes; the first that is wrong is raised as GraphError. Returns input names and output name."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {initializer.name for initializer in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    outputs = {value.name: value for value in graph.output}
    if "input_ids" not in inputs or not inputs.keys() <= set(FEEDABLE_INPUTS):
        raise GraphError(f"the graph wants the inputs {', '.join(inputs)}; serving can feed {', '.join(FEEDABLE_INPUTS)}")
    if list(outputs) != [OUTPUT]:
        raise GraphError(f"the graph's outputs are {', '.join(outputs)}; expected only {OUTPUT}")
    for name, value in inputs.items():
        if _shape(value) != [None, None]:
            raise GraphError(f"input {name} has shape {_shape(value)}; batch and sequence must both be dynamic")
    shape = _shape(outputs[OUTPUT])
    if len(shape) != 2 or shape[0] is not None or shape[1] not in (1, None):
        raise GraphError(f"output {OUTPUT} has shape {shape}; expected one score per prompt, [batch, 1]")
    return tuple(name for name in FEEDABLE_INPUTS if name in inputs), OUTPUT


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """Fixed sizes as numbers, dynamic axes as None."""
    return [axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim]
