"""What each subcommand of `python -m vllm_client` finds out, and how it shows the answer. Lines out, no printing."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.json_format import MessageToJson

from pars.v1.bundle_pb2 import Precision
from vllm_client.client import RankerClient
from vllm_client.hook.settings import settings_table
from vllm_client.priority import vllm_priority
from vllm_client.scores import Longer, PromptScore, ServerTiming, Tier
from vllm_client.table import aligned, one_line

_PRECISION_NAMES = {number: name.removeprefix("PRECISION_").lower() for name, number in Precision.items()}
_SCORE_HEADER = ("score", "tokens", "p90", "quantile")


def score(
    client: RankerClient, prompts: Sequence[str], tier: Tier, window_ms: int, now_ms: float, max_cells: int | None
) -> Iterator[str]:
    """Yield the prompts ranked, shortest expected response first: a table of `max_cells` width, or JSON objects when None.

    All of them arrive at `now_ms`, so their priorities differ by nothing but their length.
    """
    batch = client.score_all(prompts, tier=tier)
    # By quantile first, for scores of two tiers cannot be compared; within a tier it never contradicts the score.
    order = sorted(range(len(prompts)), key=lambda index: (batch.scores[index].quantile, batch.scores[index].score))
    ranked = [(index, batch.scores[index], vllm_priority(batch.scores[index].quantile, now_ms, window_ms)) for index in order]
    if max_cells is None:
        for index, result, priority in ranked:
            place = {"index": index, "prompt": prompts[index], "priority": priority, "bundle_id": batch.bundle_id}
            yield json.dumps(place | _score_fields(result))
        return
    header = ("#", *_SCORE_HEADER, "priority", "cut", "prompt")
    rows = [
        (str(number), *_score_cells(result), str(priority), "yes" if result.truncated else "", prompts[index])
        for number, (index, result, priority) in enumerate(ranked, start=1)
    ]
    yield from aligned(header, rows, max_cells)
    yield ""
    yield f"{len(prompts)} prompts, bundle {one_line(batch.bundle_id)}, {_time_split(batch.timing)}"


def compare(client: RankerClient, prompt_a: str, prompt_b: str, tier: Tier, max_cells: int | None) -> Iterator[str]:
    """Yield which of two prompts will have the longer response: a table and a sentence, or one JSON object when None."""
    batch = client.compare([(prompt_a, prompt_b)], tier=tier)
    (comparison,) = batch.comparisons
    if max_cells is None:
        yield json.dumps(
            {
                "longer": comparison.longer.name.lower(),
                "expected_tokens_difference": comparison.expected_tokens_difference,
                "a": _score_fields(comparison.score_a),
                "b": _score_fields(comparison.score_b),
                "bundle_id": batch.bundle_id,
            }
        )
        return
    rows = [
        ("A", *_score_cells(comparison.score_a), prompt_a),
        ("B", *_score_cells(comparison.score_b), prompt_b),
    ]
    yield from aligned(("", *_SCORE_HEADER, "prompt"), rows, max_cells)
    yield ""
    if comparison.longer is Longer.NEITHER:
        yield "Both have the same score."
    else:
        yield f"{comparison.longer.name} is longer, by {abs(comparison.expected_tokens_difference):.0f} expected tokens."


def bundle(client: RankerClient, as_json: bool) -> Iterator[str]:
    """Yield a summary of what the server scores with, or the whole manifest as one JSON object."""
    served = client.get_bundle()
    manifest = served.manifest
    if as_json:
        yield json.dumps(
            {
                "execution_provider": served.execution_provider,
                "max_prompts_per_call": served.max_prompts_per_call,
                "manifest": json.loads(MessageToJson(manifest, preserving_proto_field_name=True)),
            }
        )
        return
    calibration, parity = manifest.encoder_calibration, manifest.parity
    summary = {
        "bundle": manifest.bundle_id,
        "model": manifest.model_name,
        "precision": _PRECISION_NAMES.get(int(manifest.precision), f"unknown ({int(manifest.precision)})"),
        "runs on": served.execution_provider,
        "prompts per call": str(served.max_prompts_per_call),
        "tokens per prompt": str(manifest.input.max_tokens),
        "n-gram tier": "yes" if manifest.HasField("ngram") else "no",
        "size": f"{sum(file.size_bytes for file in manifest.files) / 1e6:.1f} MB in {len(manifest.files)} files",
        "calibrated on": f"{calibration.prompt_count} prompts, lengths in tokens of {calibration.length_tokenizer}",
        "parity": f"largest score difference {parity.max_score_difference:.2g}, tau {parity.kendall_tau_b:.4f}, "
        f"{parity.prompt_count} prompts",
        "licence": manifest.licence or "not stated",
        "data": manifest.data_statement or "not stated",
    }
    for name, value in summary.items():
        yield f"{name:<18} {one_line(value)}"


def hook_settings() -> Iterator[str]:
    """Yield every setting of the hook as a Markdown table. Asks nobody."""
    yield from settings_table().splitlines()


def _score_cells(score: PromptScore) -> tuple[str, str, str, str]:
    return (
        f"{score.score:.3f}",
        f"{score.expected_tokens:.0f}",
        f"{score.expected_tokens_p90:.0f}",
        f"{score.quantile:.3f}",
    )


def _score_fields(score: PromptScore) -> dict[str, Any]:
    return {
        "score": score.score,
        "quantile": score.quantile,
        "expected_tokens": score.expected_tokens,
        "expected_tokens_p90": score.expected_tokens_p90,
        "prompt_tokens": score.prompt_tokens,
        "truncated": score.truncated,
        "tier": score.tier.name.lower(),
    }


def _time_split(timing: ServerTiming) -> str:
    tokenize_ms, queue_ms, infer_ms = (time_ns / 1e6 for time_ns in timing)
    return f"server time: {tokenize_ms:.1f} ms tokenising, {queue_ms:.1f} ms queueing, {infer_ms:.1f} ms in the model"
