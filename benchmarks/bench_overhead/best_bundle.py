"""What a bundle of lower precision loses in order, from what `make quality` has measured: not measured again beside its speed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measurement import Spread
from pars.v1 import bundle_pb2
from sidecar.bundle import open_bundle

QUALITY = Path("benchmarks") / "results" / "quality.json"


@dataclass(frozen=True, slots=True)
class BestBundle:
    """For the report. tau_loss: of Kendall's tau-b against fp32, on the set where it is largest, with its 95% interval; None when
    this precision was not measured. dataset: that set. source, source_commit: where the loss is from.
    """

    bundle_id: str
    precision: str
    tau_loss: Spread | None
    dataset: str | None
    source: str
    source_commit: str | None


def best_bundle(folder: Path, quality: Path) -> BestBundle:
    """quality: the JSON; it need not be there. Raises BundleError."""
    manifest = open_bundle(folder).manifest
    precision = _name(manifest)
    document: dict[str, Any] = json.loads(quality.read_text(encoding="utf-8")) if quality.is_file() else {}
    rows = [row for row in document.get("precision") or () if row["precision"] == precision]
    if not rows:
        return BestBundle(manifest.bundle_id, precision, None, None, QUALITY.as_posix(), None)
    worst = max(rows, key=lambda row: float(row["tau_loss"]))
    loss = Spread(worst["tau_loss"], worst["tau_loss_low"], worst["tau_loss_high"])
    return BestBundle(
        manifest.bundle_id,
        precision,
        loss,
        worst["dataset"],
        QUALITY.as_posix(),
        document.get("precision_stamp", document["stamp"])["commit"],
    )


def _name(manifest: bundle_pb2.BundleManifest) -> str:
    """As `make quality` calls it."""
    if manifest.precision == bundle_pb2.PRECISION_INT8_DYNAMIC:
        # Bundles from before ranges were found for each token.
        return "int8_dynamic" if manifest.scores_depend_on_batch else "int8"
    return bundle_pb2.Precision.Name(manifest.precision).removeprefix("PRECISION_").lower()
