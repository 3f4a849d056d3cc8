"""Bundles for soak: a second valid one with answers of its own, broken ones, and links that are moved from one to another."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar.bundle import MANIFEST_FILE, TOKENIZER_FILE, bundle_id_of

TOKENS_FACTOR = 2
"""Expected tokens of the second bundle by those of the first: with them, an answer shows which bundle it really came from."""


def second_bundle(bundle: Path, folder: Path) -> Path:
    """The same model under another name and with expected tokens doubled: a valid bundle with another id."""
    manifest = _copied(bundle, folder)
    manifest["modelName"] += "-second"
    for calibration in (manifest["encoderCalibration"], manifest.get("ngram", {}).get("calibration", {})):
        for name in {"expectedTokens", "expectedTokensP90"} & set(calibration):
            calibration[name] = [TOKENS_FACTOR * value for value in calibration[name]]
    _write(folder, manifest)
    return folder


def broken_bundles(bundle: Path, folder: Path) -> dict[str, Path]:
    """By what is wrong with each: none of them may ever serve."""
    made = {}
    for what, break_it in _FAULTS.items():
        made[what] = folder / what
        manifest = _copied(bundle, made[what])
        _write(made[what], manifest)
        break_it(made[what], manifest)
    made["nothing there"] = folder / "nothing"
    return made


def point(link: Path, target: Path) -> None:
    """Let `link` lead to `target` from one moment to the next, as a deployment does."""
    coming = link.with_name(f".{link.name}.coming")
    coming.symlink_to(target.resolve())
    coming.replace(link)


def read_bundle_id(folder: Path) -> str:
    """What the manifest says."""
    bundle_id: str = _read(folder)["bundleId"]
    return bundle_id


def _copied(bundle: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    for path in bundle.iterdir():
        try:
            os.link(path, folder / path.name)  # a bundle is some 90 MB, and this makes five
        except OSError:
            shutil.copyfile(path, folder / path.name)
    return _read(folder)


def _read(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    return manifest


def _write(folder: Path, manifest: dict[str, Any], *, bundle_id: str = "") -> None:
    # Unlinked first: the file may be the original bundle's own.
    (folder / MANIFEST_FILE).unlink()
    manifest["bundleId"] = bundle_id or bundle_id_of(manifest)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")


def _damage(folder: Path, manifest: dict[str, Any]) -> None:
    path = folder / TOKENIZER_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def _edit(folder: Path, manifest: dict[str, Any]) -> None:
    _write(folder, manifest | {"modelName": "edited"}, bundle_id=manifest["bundleId"])


def _lie(folder: Path, manifest: dict[str, Any]) -> None:
    manifest["goldenPrompts"][0]["score"] += 1.0
    _write(folder, manifest)


def _lose(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST_FILE).unlink()


_FAULTS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "damaged file": _damage,
    "edited manifest": _edit,
    "wrong golden score": _lie,
    "no manifest": _lose,
}
