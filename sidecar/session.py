"""The encoder on ONNX Runtime. Runs batches and knows nothing of queues; several threads may share one OnnxScorer."""

import importlib.metadata
import logging
from collections.abc import Sequence
from typing import Any

import onnxruntime

from sidecar.bundle import Bundle
from sidecar.errors import BundleError, ModelError, ProviderError
from sidecar.graph_io import GraphIO, as_scores, shape_of
from sidecar.scorer import ProviderChoice, Scores, TokenizedPrompt

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

CUDA_OPTIONS = {
    # Batches come in many shapes. An exhaustive convolution search per shape would stall the first call of each, and an encoder
    # has no convolutions; doubling the arena on growth would hold twice the largest batch beside somebody's LLM.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
    # An fp32 bundle promises fp32 anywhere. By default newer GPUs multiply 32-bit matrices with the 10-bit mantissas that fp16 has:
    # rougher than an fp32 bundle's golden tolerance is made for. Who wants that speed serves fp16.
    "use_tf32": "0",
}
"""Of the CUDA provider. Whoever measures CUDA beside the sidecar is to use the same."""

_log = logging.getLogger(__name__)


class OnnxScorer:
    """A Scorer on one InferenceSession, fed as the bundle's manifest says.

    provider: "auto" takes CUDA where it works and CPU elsewhere; "cpu" and "cuda" take that one or raise ProviderError.
    threads: cores one run may use. 1 when several workers share the session: they then fill the cores without spinning.
    Raises ProviderError, and BundleError when the graph does not fit the manifest.
    """

    def __init__(self, bundle: Bundle, provider: ProviderChoice = "auto", threads: int = 1) -> None:
        refuse_two_runtimes()
        self._io = GraphIO(bundle)
        self._session = _open_session(bundle, provider, threads)
        self._io.check_names(
            (node.name for node in self._session.get_inputs()), (node.name for node in self._session.get_outputs())
        )

    @property
    def provider(self) -> str:
        """The execution provider the session really got, as ONNX Runtime names it."""
        return str(self._session.get_providers()[0])

    def score(self, batch: Sequence[TokenizedPrompt]) -> Scores:
        """Run the graph once over the batch, padded to its longest prompt. Returns float32[len(batch)].

        Raises ModelError when the run fails or does not return one finite float per prompt.
        """
        try:
            (output,) = self._session.run([self._io.output], self._io.arrays(batch, shape_of(batch)))
        except Exception as error:  # the runtime raises bare exceptions of its own
            raise ModelError(f"ONNX Runtime failed on a batch of {len(batch)}: {type(error).__name__}") from error
        return as_scores(output, len(batch))


def refuse_two_runtimes() -> None:
    """Raise ProviderError when both ONNX Runtime wheels are installed: they overwrite each other's files, silently."""
    names = ("onnxruntime", "onnxruntime-gpu")
    if all(_is_installed(name) for name in names):
        raise ProviderError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "uninstall both, then install exactly one of the extras: pars-sidecar[serve] or pars-sidecar[gpu]"
        )


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _open_session(bundle: Bundle, provider: ProviderChoice, threads: int) -> Any:
    if provider == "cpu":
        return _create_session(bundle, [CPU], threads)
    if CUDA not in onnxruntime.get_available_providers():
        if provider == "cuda":
            raise ProviderError(
                "provider cuda was asked for, but this ONNX Runtime is built without CUDA; install pars-sidecar[gpu]"
            )
        return _create_session(bundle, [CPU], threads)
    # CUDA and cuDNN come as wheels, where the loader does not look. Without this only a machine with both of its own has a GPU for us.
    onnxruntime.preload_dlls()
    # Being listed means only that the wheel knows CUDA. Without a usable GPU the session quietly becomes a CPU one.
    session = _create_session(bundle, [(CUDA, CUDA_OPTIONS), CPU], threads)
    if session.get_providers()[0] == CUDA:
        return session
    if provider == "cuda":
        raise ProviderError("provider cuda was asked for, but ONNX Runtime could not use the GPU; its log above says why")
    _log.warning("CUDA is built in but cannot be used on this machine: serving on the CPU")
    return session


def _create_session(bundle: Bundle, providers: list[Any], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning wins a little on a quiet machine and loses a factor of 2 to 5 on a busy one, and we live beside an LLM server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(bundle.model_path), options, providers=providers)
    except Exception as error:  # the runtime raises bare exceptions of its own
        raise BundleError(f"{bundle.model_path} cannot be loaded by ONNX Runtime: {error}") from error
