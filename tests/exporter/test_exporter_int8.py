"""8-bit products with a range for each token: close to the floats, and no token minds its neighbours."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.int8 import SMALLEST_TABLE, WEIGHT_STEPS, round_columns, to_int8


def run_graph(path: Path, **inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    (output,) = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, inputs)
    return output


def save_graph(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], inputs: dict[str, int]) -> Path:
    """A graph of these nodes. inputs: name → element type, each with two dynamic axes or, for floats, three."""
    graph = helper.make_graph(
        nodes,
        "made-by-hand",
        [
            helper.make_tensor_value_info(name, kind, ["b", "s"] if kind == TensorProto.INT64 else ["b", "s", None])
            for name, kind in inputs.items()
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", "s", None])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def one_product(folder: Path, weight: np.ndarray) -> Path:
    plain = save_graph(
        folder / "plain" / "model.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["out"])],
        {"w": weight},
        {"x": TensorProto.FLOAT},
    )
    return to_int8(plain, folder)


@pytest.fixture
def weight(rng: np.random.Generator) -> np.ndarray:
    """float32[64, 48] with columns of very different sizes."""
    return (rng.normal(size=(64, 48)) * np.logspace(-3, 2, 48)).astype(np.float32)


def test_a_product_in_8_bits_is_close_to_the_product(tmp_path: Path, rng: np.random.Generator, weight: np.ndarray) -> None:
    x = (rng.normal(size=(3, 5, 64)) * rng.lognormal(sigma=3, size=(3, 5, 1))).astype(np.float32)
    exact = x @ weight
    error = np.abs(run_graph(one_product(tmp_path, weight), x=x) - exact)
    # In units of what a token's product with that column typically is, since tokens and columns differ a millionfold.
    typical = np.linalg.norm(x, axis=-1, keepdims=True) * np.linalg.norm(weight, axis=0) / 8
    assert (error / typical).max() < 0.1


def test_a_token_does_not_mind_its_neighbours(tmp_path: Path, rng: np.random.Generator, weight: np.ndarray) -> None:
    path = one_product(tmp_path, weight)
    x = rng.normal(size=(4, 6, 64)).astype(np.float32)
    loud = x.copy()
    loud[1:] *= 1000
    together = run_graph(path, x=loud)
    np.testing.assert_array_equal(run_graph(path, x=x[:1]), together[:1])
    np.testing.assert_array_equal(run_graph(path, x=x[:1, :2]), together[:1, :2])


def test_a_token_of_zeros_gives_zeros(tmp_path: Path, weight: np.ndarray) -> None:
    x = np.zeros((1, 2, 64), dtype=np.float32)
    x[0, 1] = 1e-30
    result = run_graph(one_product(tmp_path, weight), x=x)
    np.testing.assert_array_equal(result[0, 0], 0)
    np.testing.assert_allclose(result[0, 1], 0, atol=1e-20)


@pytest.mark.parametrize("rows", [2, 7, 384])
def test_weights_keep_their_value_and_never_overflow_16_bits(rng: np.random.Generator, rows: int) -> None:
    weight = rng.standard_t(3, size=(rows, 20)).astype(np.float32)
    weight[:, 4] = 0
    rounded, scale = round_columns(weight)
    assert (np.abs(rounded * scale - weight) <= scale / 2 * (1 + 1e-4)).all()
    np.testing.assert_array_equal(rounded[:, 4], 0)
    # Without VNNI a CPU adds 255 × weight + 255 × next weight in 16 bits, and clips.
    wide = np.abs(np.pad(rounded, ((0, rows % 2), (0, 0))).astype(np.int64))
    assert (255 * (wide[0::2] + wide[1::2])).max() <= np.iinfo(np.int16).max
    assert np.abs(rounded).max() > WEIGHT_STEPS / 2


def test_only_products_with_wide_weights_and_large_tables_change(tmp_path: Path, rng: np.random.Generator) -> None:
    """1. tokens → rows of a large table 2. two products of it share their 8-bit input 3. their own product 4. a head of one column."""
    vocabulary = SMALLEST_TABLE // 32 + 1
    weights = {
        "table": rng.normal(size=(vocabulary, 32)).astype(np.float32),
        "positions": rng.normal(size=(40, 32)).astype(np.float32),
        "q": rng.normal(size=(32, 32)).astype(np.float32),
        "k": rng.normal(size=(32, 32)).astype(np.float32),
        "head": rng.normal(size=(32, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("Gather", ["positions", "places"], ["where"]),
        helper.make_node("Add", ["words", "where"], ["x"]),
        helper.make_node("MatMul", ["x", "q"], ["queries"]),
        helper.make_node("MatMul", ["x", "k"], ["keys"]),
        helper.make_node("Mul", ["queries", "keys"], ["both"]),
        helper.make_node("MatMul", ["both", "head"], ["out"]),
    ]
    plain = save_graph(
        tmp_path / "plain" / "model.onnx", nodes, weights, {"ids": TensorProto.INT64, "places": TensorProto.INT64}
    )
    path = to_int8(plain, tmp_path)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert (kinds["MatMulIntegerToFloat"], kinds["QuantizeLinear"], kinds["MatMul"], kinds["Gather"]) == (2, 1, 1, 3)
    left = {
        tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2
    }
    assert left == {"positions", "head", "table/scale"}
    assert path.stat().st_size < 0.3 * plain.stat().st_size
    tokens = {"ids": rng.integers(0, vocabulary, size=(2, 9)), "places": np.arange(18).reshape(2, 9)}
    exact, rounded = run_graph(plain, **tokens), run_graph(path, **tokens)
    assert np.abs(rounded - exact).max() < 0.05 * exact.std()
