"""The encoder on OpenVINO, for bf16 bundles: CPUs with AMX multiply 16-bit floats several times as fast as 32-bit ones, and ONNX
Runtime has no kernels for that. Runs batches and knows nothing of queues; several threads may share one OpenVinoScorer."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sidecar.bundle import Bundle
from sidecar.errors import BundleError, ModelError, ProviderError
from sidecar.graph_io import GraphIO, as_scores, shape_of
from sidecar.niceness import step_back
from sidecar.scorer import Scores, TokenizedPrompt

OPENVINO = "OpenVINO"
"""What stands where ONNX Runtime's would name its execution provider."""

CPU_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""As Linux lists them, the last one on Arm. What OpenVINO does on a CPU with none of them was not tried."""

ATTENTION_APART = {"SNIPPETS_MODE": "DISABLE"}
"""No fused attention: without it a run of 8 to 32 prompts of 24 tokens took four fifths of the time. The option is not documented, so a
release that does not know it does without."""

_log = logging.getLogger(__name__)


class OpenVinoScorer:
    """A Scorer on one compiled model, fed as the bundle's manifest says. Matrix products and all between them in bf16.

    workers: batches that may run at a time, each on threads of OpenVINO's own. threads: cores one of them may use.
    Raises ProviderError without OpenVINO, and BundleError when the graph does not fit the manifest.
    """

    provider = OPENVINO

    def __init__(self, bundle: Bundle, workers: int = 1, threads: int = 1) -> None:
        openvino = _openvino()
        if CPU_FLAGS.isdisjoint(_cpu_words()):
            _log.warning(
                "this CPU has no instructions for bf16, for which this bundle was made: an int8 or fp32 one may be faster"
            )
        self._io = GraphIO(bundle)
        options = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "NUM_STREAMS": workers,
            "INFERENCE_NUM_THREADS": workers * threads,
            # We live beside an LLM server: the system decides which cores are free, not we.
            "ENABLE_CPU_PINNING": False,
        }
        # The model's threads are as nice as the thread that makes them.
        with ThreadPoolExecutor(1, initializer=step_back) as nice:
            self._model = nice.submit(_compile, openvino, bundle, options).result()
        self._io.check_names(_names(self._model.inputs), _names(self._model.outputs))
        self._output = self._model.output(self._io.output)
        # A request is one batch in the making: each calling thread has its own.
        self._of_thread = threading.local()

    def score(self, batch: Sequence[TokenizedPrompt]) -> Scores:
        """Run the graph once over the batch, padded to a shape as round_up leaves them. Returns float32[len(batch)].

        Raises ModelError when the run fails or does not return one finite float per prompt.
        """
        try:
            request = self._of_thread.request
        except AttributeError:
            request = self._of_thread.request = self._model.create_infer_request()
        rows, tokens = shape_of(batch)
        shape = round_up(rows), min(round_up(tokens), self._io.max_tokens)
        try:
            output = request.infer(self._io.arrays(batch, shape), share_inputs=True)[self._output]
        except Exception as error:  # the runtime raises bare exceptions of its own
            raise ModelError(f"OpenVINO failed on a batch of {rows}: {type(error).__name__}") from error
        return as_scores(np.asarray(output), shape[0])[:rows]


def round_up(count: int) -> int:
    """The next number of which no more than three leading bits are set: 1 to 8, 10, 12, 14, 16, 20, … OpenVINO prepares kernels for
    each shape that it has not seen, which takes as long as the run itself, and keeps them: every shape that may come would be a gigabyte.
    """
    step = 1 << max(count.bit_length() - 3, 0)
    return -(-count // step) * step


def _openvino() -> Any:
    try:
        # Not at the top: it is an extra, and a second beside what every other bundle needs.
        import openvino
    except ImportError as error:
        raise ProviderError("a bf16 bundle runs on OpenVINO, which is not installed: install pars-sidecar[openvino]") from error
    return openvino


def _compile(openvino: Any, bundle: Bundle, options: dict[str, Any]) -> Any:
    core = openvino.Core()
    try:
        try:
            return core.compile_model(str(bundle.model_path), "CPU", options | ATTENTION_APART)
        except RuntimeError:
            return core.compile_model(str(bundle.model_path), "CPU", options)
    except Exception as error:  # the runtime raises bare exceptions of its own
        raise BundleError(f"{bundle.model_path} cannot be loaded by OpenVINO: {error}") from error


def _names(ports: Sequence[Any]) -> list[str]:
    return [port.get_any_name() for port in ports]


def _cpu_words(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    try:
        return set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return set()
