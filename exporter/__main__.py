"""`python -m exporter`: flags to one call, no logic."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from exporter.errors import ExportError
from exporter.export import export_bundle
from exporter.precision import DEFAULT_PRECISION, PRECISIONS
from sidecar.errors import SidecarError
from trainer.errors import TrainerError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m exporter", description="Export a checkpoint folder to a bundle folder.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="bundle folder; an older bundle there is replaced")
    parser.add_argument("--precision", choices=PRECISIONS, default=DEFAULT_PRECISION)
    flags = parser.parse_args(arguments)
    try:
        manifest = export_bundle(flags.checkpoint, flags.out, PRECISIONS[flags.precision])
    except (ExportError, TrainerError, SidecarError) as error:
        print(f"exporter: {error}", file=sys.stderr)
        return 1
    parity = manifest.parity
    print(
        f"bundle {manifest.bundle_id} ({manifest.model_name}, {flags.precision}) → {flags.out}\n"
        f"  against PyTorch on {parity.prompt_count} prompts: largest difference {parity.max_score_difference:.2g} "
        f"(allowed {parity.score_tolerance:.2g}), tau-b {parity.kendall_tau_b:.4f}\n"
        f"  alone against in a batch: {parity.max_batch_difference:.2g}; scores "
        f"{'depend' if manifest.scores_depend_on_batch else 'do not depend'} on the batch\n"
        f"  {sum(file.size_bytes for file in manifest.files) / 1e6:.1f} MB in {len(manifest.files)} files"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
