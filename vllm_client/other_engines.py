"""The same priority for engines that count another way. Ours is vLLM's direction; it is turned round here and nowhere else."""

from vllm_client.priority import DEFAULT_WINDOW_MS, known, vllm_priority


def sglang_priority(quantile: float | None, arrival_ms: float, window_ms: int = DEFAULT_WINDOW_MS) -> int:
    """Return the priority for SGLang, where larger runs earlier unless it was started with low values first. Bound of `ageing`."""
    return -max(-(2**63 - 1), vllm_priority(quantile, arrival_ms, window_ms))


def tensorrt_llm_priority(quantile: float | None) -> float:
    """Return the priority for TensorRT-LLM: a float in [0, 1], larger runs earlier, its default 0.5.

    There is no room in it for the arrival time, so there is NO starvation bound: under lasting overload long requests wait as
    long as shorter ones keep coming.
    """
    return 1.0 - known(quantile)
