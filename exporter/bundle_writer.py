"""Fills a bundle folder: files, hashes, manifest. Written under a temporary name and renamed when complete."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import json_format

from exporter.errors import ExportError
from pars.v1 import bundle_pb2
from sidecar.bundle import MANIFEST_FILE, bundle_id_of
from trainer.calibrate import CalibrationTable


@contextmanager
def bundle_folder(out: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `out` when the block ends well and is removed when it does not.

    An older bundle at `out` is replaced at the very end; anything else there is refused.
    """
    out = out.resolve()
    if out.exists() and not _is_bundle(out):
        raise ExportError(f"{out} exists and is not a bundle; not overwriting it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        coming, replaced = Path(work) / "coming", Path(work) / "replaced"
        coming.mkdir()
        yield coming
        if out.exists():
            out.rename(replaced)
        try:
            coming.rename(out)
        except OSError:
            if replaced.exists():
                replaced.rename(out)
            raise


def _is_bundle(folder: Path) -> bool:
    """Whether the folder holds a bundle and nothing else, or nothing at all. Many things have a manifest.json."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
        listed = {file["path"] for file in manifest["files"]}
        return bool(manifest["bundleId"]) and names <= listed | {MANIFEST_FILE}
    except (OSError, ValueError, TypeError, KeyError):
        return not names


def write_manifest(folder: Path, manifest: bundle_pb2.BundleManifest) -> str:
    """Hash every file of `folder` into `manifest`, give it its id and write it. Returns the id."""
    del manifest.files[:]
    for path in sorted(folder.iterdir()):
        if path.name == MANIFEST_FILE:
            continue
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        manifest.files.append(bundle_pb2.BundleFile(path=path.name, sha256=digest, size_bytes=path.stat().st_size))
    manifest.bundle_id = ""
    as_json = json_format.MessageToDict(manifest)
    as_json["bundleId"] = manifest.bundle_id = bundle_id_of(as_json)
    (folder / MANIFEST_FILE).write_text(json.dumps(as_json, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest.bundle_id


def to_calibration(table: CalibrationTable, length_tokenizer: str) -> bundle_pb2.Calibration:
    """The trainer's table as the manifest's message."""
    return bundle_pb2.Calibration(
        scores=table.scores,
        quantiles=table.quantiles,
        expected_tokens=table.expected_tokens,
        expected_tokens_p90=table.expected_tokens_p90,
        prompt_count=table.prompt_count,
        length_tokenizer=length_tokenizer,
    )
