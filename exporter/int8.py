"""Matrix products on 8-bit integers with a range for each token, so that a prompt's score does not depend on its neighbours.

ONNX Runtime's own dynamic quantisation takes one range over everything in the batch, padding included. Here each token's vector is
divided by its own largest magnitude first, and what is left always lies in [-1, 1]:

    x W  ≈  max|x| · s · (q(x / max|x|) Q)      q: 8 bits around 128; Q: W in 8 bits, with one scale s for each of its columns

Nothing has to be recorded beforehand: neither ranges nor prompts to take them from. Products of two activations (attention), the head
and everything that is no matrix product stay in 32-bit floats. The idea is that of ZeroQuant (arXiv 2206.01861); docs/decisions/0012
has the figures and what else was tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

FloatArray = npt.NDArray[np.float32]

ACTIVATION_STEPS = 127
"""On either side of zero; the stored byte is this around 128."""
WEIGHT_STEPS = 127
"""Bound of every weight and of the sum of two neighbours of a column. CPUs without VNNI add the products of two neighbouring bytes in
16 bits: 255 · 128 just fits, so they reach the same scores instead of silently clipping."""
SMALLEST_TABLE = 1_000_000
"""Numbers in an embedding table from which on storing it in 8 bits makes the bundle noticeably smaller."""
SMALLEST_RANGE = 1e-12
"""Stands in for the range of a token that is all zeros."""


def to_int8(plain: Path, folder: Path) -> Path:
    """Rewrite the graph in `plain` and save it in `folder` under the same name; returns its path."""
    model = onnx.load(plain)
    rewritten = _Rewritten()
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        rewritten.nodes.extend(_in_8_bits(node, constants, rewritten))
    del model.graph.node[:]
    model.graph.node.extend(rewritten.nodes)
    used = {name for node in rewritten.nodes for name in node.input}
    kept = [tensor for tensor in (*model.graph.initializer, *rewritten.constants.values()) if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path = folder / plain.name
    onnx.save(model, path)
    return path


@dataclass
class _Rewritten:
    """The graph on its way. quantised: activations that exist in 8 bits already, since several products may share one."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    quantised: set[str] = field(default_factory=set)

    def constant(self, name: str, value: npt.ArrayLike, kind: type[np.generic]) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype=kind), name)
        return name


def _in_8_bits(node: NodeProto, constants: dict[str, TensorProto], graph: _Rewritten) -> Iterator[NodeProto]:
    """The nodes that take this one's place; the node itself where it stays in floats."""
    if node.op_type == "MatMul" and node.input[1] in constants:
        weight = numpy_helper.to_array(constants[node.input[1]])
        # A single column is a head's: next to no work, and all of the score.
        if weight.ndim == 2 and weight.shape[1] > 1:
            return _product(node, weight, graph)
    if node.op_type == "Gather" and node.input[0] in constants and not any(each.i for each in node.attribute):  # rows of it
        table = numpy_helper.to_array(constants[node.input[0]])
        if table.ndim == 2 and table.dtype == np.float32 and table.size >= SMALLEST_TABLE:
            return _look_up(node, table, graph)
    return iter((node,))


def _product(node: NodeProto, weight: FloatArray, graph: _Rewritten) -> Iterator[NodeProto]:
    source, name, output = node.input[0], node.input[1], node.output[0]
    step = graph.constant("int8/activation_step", 1 / ACTIVATION_STEPS, np.float32)
    middle = graph.constant("int8/activation_middle", 128, np.uint8)
    if source not in graph.quantised:
        graph.quantised.add(source)
        last_axis = graph.constant("int8/last_axis", [-1], np.int64)
        smallest = graph.constant("int8/smallest_range", SMALLEST_RANGE, np.float32)
        yield helper.make_node("Abs", [source], [f"{source}/magnitude"])
        yield helper.make_node("ReduceMax", [f"{source}/magnitude", last_axis], [f"{source}/largest"], keepdims=1)
        yield helper.make_node("Max", [f"{source}/largest", smallest], [f"{source}/range"])
        yield helper.make_node("Div", [source, f"{source}/range"], [f"{source}/unit"])
        yield helper.make_node("QuantizeLinear", [f"{source}/unit", step, middle], [f"{source}/int8"])
    rounded, scale = round_columns(weight)
    matrix = graph.constant(f"{name}/int8", rounded, np.int8)
    scales = graph.constant(f"{name}/scale", scale, np.float32)
    yield helper.make_node(
        "MatMulIntegerToFloat",
        [f"{source}/int8", matrix, step, scales, middle],
        [f"{output}/unit"],
        name=node.name,
        domain="com.microsoft",
    )
    yield helper.make_node("Mul", [f"{output}/unit", f"{source}/range"], [output])


def _look_up(node: NodeProto, table: FloatArray, graph: _Rewritten) -> Iterator[NodeProto]:
    """A row of the table is stored in 8 bits with a scale of its own."""
    (name, rows), output = node.input, node.output[0]
    scale = np.abs(table).max(axis=1, keepdims=True) / WEIGHT_STEPS
    scale[scale == 0] = 1
    rounded = graph.constant(f"{name}/int8", np.round(table / scale), np.int8)
    scales = graph.constant(f"{name}/scale", scale, np.float32)
    yield helper.make_node("Gather", [rounded, rows], [f"{output}/int8"], name=node.name)
    yield helper.make_node("Gather", [scales, rows], [f"{output}/scale"])
    yield helper.make_node("Cast", [f"{output}/int8"], [f"{output}/steps"], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{output}/steps", f"{output}/scale"], [output])


def round_columns(weight: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """int8[rows, columns] and float32[columns], whose product is nearly `weight`, float32[rows, columns]. See WEIGHT_STEPS."""
    magnitude = np.abs(weight)
    padded = np.pad(magnitude, ((0, len(magnitude) % 2), (0, 0)))
    scale = (padded[0::2] + padded[1::2]).max(axis=0) / WEIGHT_STEPS
    scale[scale == 0] = 1
    return np.round(weight / scale).astype(np.int8), scale.astype(np.float32)
