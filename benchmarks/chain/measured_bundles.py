"""The checkpoint in every precision: what each weighs, and how far it strays from PyTorch."""

from pathlib import Path
from typing import Any

from benchmarks.chain.report import PartError
from exporter.errors import ExportError
from exporter.export import export_bundle
from exporter.precision import PRECISIONS
from sidecar.bundle import MODEL_FILE
from sidecar.errors import SidecarError
from trainer.errors import TrainerError


def export_all(checkpoint: Path, out: Path) -> list[dict[str, Any]]:
    """Export to `out/<precision>`; one row each. Raises PartError: a precision that misses its tolerance is news, not a gap."""
    rows = []
    for name, precision in PRECISIONS.items():
        try:
            manifest = export_bundle(checkpoint, out / name, precision)
        except (ExportError, SidecarError, TrainerError) as error:
            raise PartError(f"export in {name}: {error}") from error
        parity = manifest.parity
        sizes = {file.path: file.size_bytes for file in manifest.files}
        rows.append(
            {
                "precision": name,
                "bundle_id": manifest.bundle_id,
                "probe_prompts": parity.prompt_count,
                "max_score_difference": parity.max_score_difference,
                "score_tolerance": parity.score_tolerance,
                "kendall_tau_b": parity.kendall_tau_b,
                "kendall_tau_b_floor": parity.kendall_tau_b_floor,
                "max_batch_difference": parity.max_batch_difference,
                "scores_depend_on_batch": manifest.scores_depend_on_batch,
                "model_bytes": sizes[MODEL_FILE],
                "bundle_bytes": sum(file.stat().st_size for file in (out / name).iterdir()),
            }
        )
    return rows
