"""Which runtime runs a bundle's encoder: ONNX Runtime, and OpenVINO for bf16, which ONNX Runtime cannot multiply on a CPU."""

from typing import Protocol

from pars.v1 import bundle_pb2
from sidecar.bundle import Bundle
from sidecar.errors import ProviderError
from sidecar.openvino_session import OpenVinoScorer
from sidecar.scorer import ProviderChoice, Scorer
from sidecar.session import OnnxScorer


class Encoder(Scorer, Protocol):
    """A Scorer that says what it runs on: as ONNX Runtime names the execution provider, or "OpenVINO"."""

    @property
    def provider(self) -> str: ...


def open_encoder(bundle: Bundle, provider: ProviderChoice = "auto", *, workers: int = 1, threads: int = 1) -> Encoder:
    """Open the bundle's graph.

    provider: "auto" takes CUDA where it works and CPU elsewhere; "cpu" and "cuda" take that one. workers: threads that will call
    score() at the same time. threads: cores one run may use; 1 when several workers share them.
    Raises ProviderError when it cannot run there, and BundleError when the graph does not fit the manifest.
    """
    if bundle.manifest.precision == bundle_pb2.PRECISION_BF16:
        if provider == "cuda":
            raise ProviderError("provider cuda was asked for, but a bf16 bundle is for CPUs: serve fp16 on a GPU")
        return OpenVinoScorer(bundle, workers, threads)
    return OnnxScorer(bundle, provider, threads)
