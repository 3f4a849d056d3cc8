"""The same prompts, on the CPU and on the device: how far the scores are apart, and what became of the order."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from benchmarks.bare import sorted_batches
from benchmarks.gpu.job import Job
from benchmarks.gpu.outcome import Outcome, reason
from benchmarks.gpu.sessions import as_inputs, device_session, scores_of
from benchmarks.workload import sample
from sidecar import golden
from sidecar.bundle import Bundle, open_bundle
from sidecar.cores import allotted_cores
from sidecar.errors import SidecarError
from sidecar.scorer import TokenizedPrompt
from sidecar.session import OnnxScorer
from sidecar.tokenization import PromptTokenizer

BATCH_PROMPTS = 32

Vector = npt.NDArray[np.float32]


def measure_parity(job: Job, outcome: Outcome) -> None:
    """Figures by precision: see `compared`; on CUDA also with and without TF32, which the provider multiplies 32-bit floats in
    unless told not to.

    A difference beyond the bundle's golden_tolerance is a failure: the sidecar would not start.
    """
    prompts = sample(job.prompts, job.plan.parity_prompts)
    reference: Vector | None = None
    for precision, folder in job.bundles.items():
        bundle = open_bundle(folder)
        batches = sorted_batches(PromptTokenizer.for_bundle(bundle).encode(prompts), BATCH_PROMPTS, 0)
        on_cpu = _served(bundle, OnnxScorer(bundle, "cpu", threads=allotted_cores()), batches)
        reference = on_cpu if reference is None else reference
        scorer = OnnxScorer(bundle, job.device, threads=1)
        on_device = _served(bundle, scorer, batches)
        figures = compared(on_device, on_cpu) | {
            "tau_b_to_first_precision_on_cpu": compared(on_device, reference)["kendall_tau_b"],
            "score_standard_deviation": float(on_cpu.std()),
            "golden_tolerance": bundle.manifest.golden_tolerance,
            "prompts": len(prompts),
        }
        if job.device == "cuda":
            for name, use_tf32 in (("with_tf32", "1"), ("without_tf32", "0")):
                session = device_session(bundle, job.device, {"use_tf32": use_tf32})
                figures[name] = compared(np.concatenate([_plain(bundle, session, batch) for batch in batches]), on_cpu)
        outcome.figures[precision] = figures
        try:
            golden.replay(bundle, scorer, "score")
        except SidecarError as error:
            outcome.failures[f"{precision}: golden prompts"] = reason(error)
        outcome.keep()


def compared(scores: Vector, reference: Vector) -> dict[str, Any]:
    """Both float32[prompts]. inverted_pairs_share: of all pairs that the reference orders, those ordered the other way."""
    above, wanted = (np.sign(each[:, None] - each[None, :]) for each in (scores, reference))
    ordered = int(np.count_nonzero(wanted))
    return {
        "max_score_difference": float(np.abs(scores - reference).max()),
        "mean_score_difference": float(np.abs(scores - reference).mean()),
        "kendall_tau_b": float(kendalltau(scores, reference).statistic),
        "inverted_pairs_share": float(np.count_nonzero(above * wanted < 0) / ordered) if ordered else 0.0,
    }


def _served(bundle: Bundle, scorer: OnnxScorer, batches: list[list[TokenizedPrompt]]) -> Vector:
    return np.concatenate([scorer.score(batch) for batch in batches])


def _plain(bundle: Bundle, session: Any, batch: list[TokenizedPrompt]) -> Vector:
    return scores_of(session, bundle.manifest.input.output_name, padded(session, bundle, batch))


def padded(session: Any, bundle: Bundle, batch: list[TokenizedPrompt]) -> dict[str, npt.NDArray[np.int64]]:
    """A batch as the sidecar's session pads it: to its longest prompt, an empty one read as one padding token."""
    lengths = [max(len(prompt.token_ids), 1) for prompt in batch]
    shape = (len(batch), max(lengths))
    token_ids = np.full(shape, bundle.manifest.input.pad_token_id, dtype=np.int64)
    for row, prompt in enumerate(batch):
        token_ids[row, : len(prompt.token_ids)] = prompt.token_ids
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    return as_inputs(session, token_ids, mask, bundle)
