"""ONNX Runtime sessions as the sidecar opens them, and those it might: with a CUDA graph, or on TensorRT."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks.gpu.plan import Shape
from sidecar.bundle import Bundle
from sidecar.session import CPU, CUDA, CUDA_OPTIONS

TENSORRT = "TensorrtExecutionProvider"

Device = Literal["cpu", "cuda"]

Inputs = dict[str, npt.NDArray[np.int64]]


class NotHereError(RuntimeError):
    """This machine, or this ONNX Runtime, cannot do it. Nothing is wrong with what is measured."""


def device_session(bundle: Bundle, device: Device, options: Mapping[str, str] | None = None) -> Any:
    """What the sidecar would open, on the device, any shape. options: of the CUDA provider, beyond the sidecar's own."""
    if device == "cpu":
        return _open(bundle, [CPU])
    return _open(bundle, [(CUDA, CUDA_OPTIONS | dict(options or {})), CPU])


def graph_session(bundle: Bundle, device: Device, shape: Shape, dimensions: tuple[str, ...]) -> Any:
    """With a CUDA graph, for one shape. dimensions: see `free_dimensions`. Raises NotHereError.

    The shape is written into the graph when it is loaded: shape arithmetic, which runs on the CPU and would end the session's start
    where it needs a copy between devices, then folds away.
    """
    if device == "cpu":
        raise NotHereError("a CUDA graph needs the CUDA provider")
    providers = [(CUDA, CUDA_OPTIONS | {"enable_cuda_graph": "1"}), CPU]
    return _open(bundle, providers, dict(zip(dimensions, shape, strict=True)) if dimensions else None)


def tensorrt_session(bundle: Bundle, device: Device, shapes: tuple[Shape, ...], *, fp16: bool) -> Any:
    """On TensorRT, one engine for all the shapes, built now: that can take a minute. Raises NotHereError.

    bundle: the fp32 one in both cases, since TensorRT cannot read the fused operators of our fp16 graph and lowers precision itself.
    """
    if device == "cpu" or TENSORRT not in onnxruntime.get_available_providers():
        raise NotHereError("this ONNX Runtime is built without TensorRT" if device != "cpu" else "TensorRT needs a GPU")
    sizes = [[shape[axis] for shape in shapes] for axis in (0, 1)]

    def profile(batch: int, length: int) -> str:
        return ",".join(f"{name}:{batch}x{length}" for name in bundle.manifest.input.input_names)

    options = {
        "trt_fp16_enable": "1" if fp16 else "0",
        "trt_profile_min_shapes": profile(min(sizes[0]), min(sizes[1])),
        "trt_profile_opt_shapes": profile(max(sizes[0]), max(sizes[1])),
        "trt_profile_max_shapes": profile(max(sizes[0]), max(sizes[1])),
    }
    try:
        return _open(bundle, [(TENSORRT, options), (CUDA, CUDA_OPTIONS), CPU])
    except NotHereError as error:
        raise NotHereError("TensorRT's libraries are not installed, or not usable; ONNX Runtime's log says why") from error


def free_dimensions(session: Any) -> tuple[str, ...]:
    """The names of batch and length in the graph's inputs; none where they have none."""
    names = tuple(session.get_inputs()[0].shape)
    return names if len(names) == 2 and all(isinstance(name, str) for name in names) else ()


def random_inputs(session: Any, bundle: Bundle, shape: Shape, seed: int) -> Inputs:
    """Token ids that no two seeds share, without padding."""
    rows = np.random.default_rng(seed).integers(1, 100, size=shape, dtype=np.int64)
    return as_inputs(session, rows, np.ones(shape, dtype=np.int64), bundle)


def as_inputs(session: Any, token_ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], bundle: Bundle) -> Inputs:
    """int64[batch, length] each, by the graph's names. Raises ValueError for a graph that wants something else."""
    arrays = {"input_ids": token_ids, "attention_mask": mask, "token_type_ids": np.zeros_like(token_ids)}
    wanted = [node.name for node in session.get_inputs()]
    if unknown := set(wanted) - set(arrays):
        raise ValueError(f"{bundle.manifest.model_name} wants the inputs {sorted(unknown)}, which this benchmark cannot make")
    return {name: arrays[name] for name in wanted}


def scores_of(session: Any, output_name: str, inputs: Inputs) -> npt.NDArray[np.float32]:
    """A plain run, from numpy to numpy. Returns float32[batch]."""
    (output,) = session.run([output_name], inputs)
    scores: npt.NDArray[np.float32] = np.asarray(output, dtype=np.float32).reshape(-1)
    return scores


def _open(bundle: Bundle, providers: list[Any], fixed: Mapping[str, int] | None = None) -> Any:
    """Raises NotHereError when the session silently became one of another provider."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, size in (fixed or {}).items():
        options.add_free_dimension_override_by_name(name, size)
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted != CPU:
        onnxruntime.preload_dlls()
    # Without enable_fallback=0 an error of the provider would be swallowed, and the next provider taken.
    session = onnxruntime.InferenceSession(str(bundle.model_path), options, providers=providers, enable_fallback=0)
    if (found := session.get_providers()[0]) != wanted:
        raise NotHereError(f"asked for {wanted}, got {found}; ONNX Runtime's log says why")
    return session
