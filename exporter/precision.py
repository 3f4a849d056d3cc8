"""The precisions a bundle can have: how the graph is converted, and how far its scores may stray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import GraphError
from exporter.int8 import to_int8
from pars.v1 import bundle_pb2


@dataclass(frozen=True)
class Precision:
    """One precision. Tolerances are in standard deviations of the PyTorch scores over the probe prompts, since a score has no unit.

    score_tolerance: largest difference to PyTorch in fp32. tau_b_floor: lowest rank agreement with it. golden_tolerance: largest
    difference when the bundle is opened on another machine. int8 moved a score by up to 0.09 and gave tau-b 0.978 on MiniLM, so its
    bounds only catch what is broken. convert: file of the plain graph, folder for the result → its file. run_by: the package of a runtime
    of its own.
    """

    name: str
    proto: bundle_pb2.Precision
    score_tolerance: float
    tau_b_floor: float
    golden_tolerance: float
    convert: Callable[[Path, Path], Path]
    run_by: tuple[str, ...] = ()


def _keep(plain: Path, folder: Path) -> Path:
    # The runtime's own optimisation at load is as fast as the ready-made O2 on a CPU, and keeps the file portable.
    return plain


def _to_fp16(plain: Path, folder: Path) -> Path:
    """Optimum's O4: fused operators, 16-bit floats inside, 32-bit outside. Meant for CUDA; runs on a CPU, but slowly."""
    from optimum.onnxruntime import AutoOptimizationConfig, ORTModelForSequenceClassification, ORTOptimizer

    model = ORTModelForSequenceClassification.from_pretrained(plain.parent, provider="CPUExecutionProvider")
    try:
        optimizer = ORTOptimizer.from_pretrained(model)
        optimizer.optimize(AutoOptimizationConfig.O4(), save_dir=folder, file_suffix="")
    except (NotImplementedError, KeyError) as error:  # either, depending on its release, for an unknown architecture
        raise GraphError(f"Optimum cannot optimise this architecture for fp16: {error}") from error
    return folder / "model.onnx"


DEFAULT_PRECISION = "fp32"
"""The reference, on any device; see docs/bundles.md for what each costs and loses."""

PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", bundle_pb2.PRECISION_FP32, 1e-4, 0.9999, 1e-3, _keep),
        Precision("fp16", bundle_pb2.PRECISION_FP16, 2e-2, 0.99, 3e-2, _to_fp16),
        Precision("int8", bundle_pb2.PRECISION_INT8_DYNAMIC, 0.3, 0.93, 0.1, to_int8),
        Precision("bf16", bundle_pb2.PRECISION_BF16, 0.1, 0.97, 0.1, _keep, run_by=("openvino",)),
    )
}
