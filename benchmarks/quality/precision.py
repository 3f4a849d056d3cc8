"""What does a ranker lose on its way into a bundle? `python -m benchmarks.quality.precision --checkpoint DIR --data DIR --out FILE`.

Every precision is exported, held-out prompts are scored through the sidecar's own session, alone and in batches, and the order is compared
with real response lengths. A run that was interrupted goes on where it stood.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.datasets import RECIPES
from benchmarks.quality.precision_figures import PrecisionRow, rows_of, speed_of
from benchmarks.quality.precision_scores import BATCH_PROMPTS, COMPARED, DYNAMIC, bundle_in, cpu_ms_per_prompt, score
from benchmarks.quality.precision_sets import HeldOut, held_out
from benchmarks.quality.report import ON_CPUS
from benchmarks.report import aligned, write_json
from benchmarks.stamp import make_stamp
from exporter.errors import ExportError
from sidecar.bundle import Bundle
from sidecar.calibration import Calibrator
from sidecar.errors import SidecarError
from trainer.errors import ExpectationError, TrainerError
from trainer.recipe import read_recipe

MODULE = "benchmarks.quality.precision"

NOTES = (
    "Held-out prompts only. tau: against the typical length, prompts scored alone. tau_loss: against fp32 on the same prompts, with the "
    "interval of a paired bootstrap. batched_loss: the same in batches of 8 neighbours in length.",
    f"{DYNAMIC} is what int8 was before it had a range for each token; it is measured for comparison and no longer exported.",
    "fp16 is made for CUDA and measured on a CPU here: its scores count, its speed does not.",
    "CPU milliseconds are of one thread of the model; the precisions take turns, so ratios are of the same minute. Load beside them moves "
    "both.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the recipe's files")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    parser.add_argument("--recipe", type=Path, default=RECIPES / "default_ranker.toml", help="what the checkpoint learned from")
    parser.add_argument("--work", type=Path, default=Path("runs/precision"), help="bundles and scores, kept for the next run")
    parser.add_argument("--only", default=",".join(COMPARED), help="precisions, fp32 always included")
    parser.add_argument("--zero-shot-prompts", type=int, default=1500, help="of each set the ranker never learned from")
    parser.add_argument("--own-prompts", type=int, default=400, help="of each source it learned from")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--timed-prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7, help="of timing; 0: not timed")
    parser.add_argument(
        "--largest-loss", type=float, default=0.005, help="of tau-b on any set, int8 and bf16, alone or in batches"
    )
    flags = parser.parse_args(arguments)
    stamp = make_stamp(MODULE, arguments)
    try:
        sets = held_out(
            read_recipe(flags.recipe, flags.data), zero_shot_prompts=flags.zero_shot_prompts, own_prompts=flags.own_prompts
        )
        names = [name for name in COMPARED if name == "fp32" or name in flags.only.split(",")]
        bundles = {name: bundle_in(COMPARED[name], flags.checkpoint, flags.work) for name in names}
        rows = measure(bundles, sets, flags.work, resamples=flags.resamples)
        some = [prompt for each in sets for prompt in each.prompts[: -(-flags.timed_prompts // len(sets))]]
        speed = speed_of(cpu_ms_per_prompt(bundles, some, flags.rounds)) if flags.rounds else {}
        write_json(
            flags.out,
            {
                "stamp": stamp,
                "notes": NOTES,
                "precision": [row.as_dict() for row in rows],
                "bundles": [about(name, bundle) | speed.get(name, {}) for name, bundle in bundles.items()],
            },
        )
        print("\n".join(table(rows)))
        check_loss(rows, flags.largest_loss)
    except (TrainerError, ExportError, SidecarError) as error:
        print(f"{MODULE}: {error}", file=sys.stderr)
        return 1
    return 0


def measure(bundles: Mapping[str, Bundle], sets: Sequence[HeldOut], work: Path, *, resamples: int) -> list[PrecisionRow]:
    """Rows of all sets and precisions, set by set."""
    calibrators = {name: Calibrator(bundle.manifest.encoder_calibration) for name, bundle in bundles.items()}
    rows = []
    for each in sets:
        scores = {name: score(bundle, each, work) for name, bundle in bundles.items()}
        rows += rows_of(each, scores, calibrators, resamples=resamples)
    return rows


def about(name: str, bundle: Bundle) -> dict[str, Any]:
    """What a bundle is, and what its export proved on the probe prompts."""
    manifest = bundle.manifest
    return {
        "precision": name,
        "bundle_id": manifest.bundle_id,
        "bundle_bytes": sum(path.stat().st_size for path in bundle.folder.iterdir()),
        "scores_depend_on_batch": manifest.scores_depend_on_batch,
        "probe_max_score_difference": manifest.parity.max_score_difference,
        "probe_kendall_tau_b": manifest.parity.kendall_tau_b,
    }


def check_loss(rows: Sequence[PrecisionRow], largest: float) -> None:
    """Raise ExpectationError when a precision for CPUs loses more order than promised on any set."""
    for row in rows:
        lost = max(row.tau_loss, row.batched_loss)
        if row.precision in ON_CPUS and not lost < largest:
            raise ExpectationError(f"{row.precision} loses {lost:.4f} tau-b on {row.dataset}, promised is less than {largest}")


def table(rows: Sequence[PrecisionRow]) -> list[str]:
    """Lines for people, a row each."""
    batch = f"in {BATCH_PROMPTS}s"
    header = ("set", "precision", "prompts", "tau-b", "loss", "interval", f"loss {batch}", "to fp32", f"to itself {batch}")
    return aligned(
        (*header, "under p90", "|log ratio|"),
        [
            (
                *(row.dataset, row.precision, f"{row.prompts:,}", f"{row.tau:.4f}", f"{row.tau_loss:+.4f}"),
                f"{row.tau_loss_low:+.4f} to {row.tau_loss_high:+.4f}",
                *(f"{row.batched_loss:+.4f}", f"{row.tau_to_fp32:.4f}", f"{row.alone_to_batched:.4f}"),
                *(f"{row.under_p90:.3f}", f"{row.median_log_ratio:.3f}"),
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
