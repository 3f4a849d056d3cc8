"""Opening bundles: one damaged bundle per fault, each refused with its own message."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sidecar_tiny import BUCKETS, file_entry, make_bundle, read_manifest, rehash, write_manifest

from pars import ngram
from sidecar.bundle import bundle_id_of, open_bundle
from sidecar.errors import BundleError

Damage = Callable[[Path], None]


def edit(**changes: Any) -> Damage:
    """Change top-level fields of the manifest; None removes one. The id is made to fit."""

    def damage(folder: Path) -> None:
        manifest = {**read_manifest(folder), **changes}
        write_manifest(folder, {key: value for key, value in manifest.items() if value is not None})

    return damage


def edit_inside(field: str, **changes: Any) -> Damage:
    """The same inside one message field."""

    def damage(folder: Path) -> None:
        inner = {**read_manifest(folder)[field], **changes}
        edit(**{field: {key: value for key, value in inner.items() if value is not None}})(folder)

    return damage


def edit_file(**changes: Any) -> Damage:
    """Change the first file entry, model.onnx."""

    def damage(folder: Path) -> None:
        first, *rest = read_manifest(folder)["files"]
        edit(files=[{**first, **changes}, *rest])(folder)

    return damage


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content) and None


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_the_model_short(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def link_out(folder: Path) -> None:
    outside = folder.parent / "outside.onnx"
    (folder / "model.onnx").rename(outside)
    (folder / "model.onnx").symlink_to(outside)


def folder_instead_of_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


def edit_unsigned(folder: Path) -> None:
    write_manifest(folder, {**read_manifest(folder), "modelName": "other"}, sign=False)


def unknown_field(folder: Path) -> None:
    manifest = {**read_manifest(folder), "colour": "blue"}
    write_manifest(folder, {**manifest, "bundleId": bundle_id_of(manifest)}, sign=False)


def ngram_file(array: np.ndarray | None = None, content: bytes | None = None) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "ngram.npy"
        if content is not None:
            path.write_bytes(content)
        else:
            assert array is not None
            np.save(path, array, allow_pickle=True)
        rehash(folder, "ngram.npy")

    return damage


def ngram_archive(folder: Path) -> None:
    with (folder / "ngram.npy").open("wb") as file:
        np.savez(file, weights=np.zeros(3))
    rehash(folder, "ngram.npy")


def not_finite() -> np.ndarray:
    weights = np.zeros(ngram.weight_count(BUCKETS), dtype=np.float32)
    weights[3] = np.inf
    return weights


def knots(**changes: Any) -> Damage:
    return edit_inside("encoderCalibration", **changes)


GOLDEN = {"prompt": "long", "score": 2.0, "ngramScore": 0.5}

FAULTS: dict[str, tuple[Damage, str]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json in it"),
    "manifest is not JSON": (write("manifest.json", b"{"), "manifest.json is not JSON"),
    "manifest is not UTF-8": (write("manifest.json", b'{"a": "\xff"}'), "manifest.json is not JSON"),
    "manifest nests too deep": (write("manifest.json", b"[" * 100_000), "manifest.json is not JSON"),
    "manifest is a list": (write("manifest.json", b"[]"), "manifest.json is not a JSON object"),
    "manifest is far too large": (write("manifest.json", b" " * (16 * 1024 * 1024 + 1)), "manifest.json is larger than"),
    "format version is missing": (edit(formatVersion=None), "format_version is None, this sidecar reads 1"),
    "format version is from the future": (edit(formatVersion=2), "format_version is 2, this sidecar reads 1"),
    "manifest has an unknown field": (unknown_field, 'not a BundleManifest.*"colour"'),
    "manifest was edited after export": (edit_unsigned, "bundle_id is .* it was edited after export"),
    "precision is missing": (edit(precision=None), "precision is not set"),
    "files lists no model": (
        lambda folder: edit(files=read_manifest(folder)["files"][1:])(folder),
        "does not list 'model.onnx'",
    ),
    "files lists no n-gram weights": (
        lambda folder: edit(files=read_manifest(folder)["files"][:2])(folder),
        "does not list 'ngram.npy'",
    ),
    "files lists one twice": (lambda folder: edit(files=read_manifest(folder)["files"] * 2)(folder), "lists a path twice"),
    "a path leaves the folder": (edit_file(path="../model.onnx"), "is not a plain file name"),
    "a path is absolute": (edit_file(path="/etc/passwd"), "'/etc/passwd' is not a plain file name"),
    "a path has a folder in it": (edit_file(path="sub/model.onnx"), "is not a plain file name"),
    "a path is dots": (edit_file(path=".."), r"'\.\.' is not a plain file name"),
    "a path is empty": (edit_file(path=None), "is not a plain file name"),
    "a path has a backslash": (edit_file(path="..\\model.onnx"), "is not a plain file name"),
    "a path has a NUL": (edit_file(path="model.onnx\0"), "is not a plain file name"),
    "a file is missing": (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
    "a file is a link out of the folder": (link_out, "model.onnx is a link that leaves the folder"),
    "a file is a folder": (folder_instead_of_file, "tokenizer.json is not a regular file"),
    "a file is too short": (cut_the_model_short, r"model.onnx has \d+ bytes, the manifest says \d+"),
    "a file has a flipped bit": (flip_a_byte, "model.onnx has other content than the manifest says"),
    "a hash is no hash": (edit_file(sha256="XYZ"), "sha256 is not 64 lower-case hex digits"),
    "max_tokens is too small": (edit_inside("input", maxTokens=3), "input.max_tokens is 3, at least 4"),
    "max_chars is missing": (edit_inside("input", maxChars=None), "input.max_chars is not set"),
    "input_names lacks input_ids": (edit_inside("input", inputNames=["attention_mask"]), "input.input_names"),
    "input_names has an unknown one": (edit_inside("input", inputNames=["input_ids", "pixels"]), "input.input_names"),
    "input_names has one twice": (edit_inside("input", inputNames=["input_ids", "input_ids"]), "input.input_names"),
    "output_name is missing": (edit_inside("input", outputName=None), "input.output_name is not set"),
    "calibration is missing": (edit(encoderCalibration=None), "encoder_calibration: at least 2 knots are needed, got 0"),
    "calibration lists differ in length": (
        knots(quantiles=[0.0, 1.0]),
        "encoder_calibration: the four lists must have one length",
    ),
    "calibration scores stand still": (knots(scores=[0.0, 1.0, 1.0]), "scores must be strictly increasing"),
    "calibration holds NaN": (knots(expectedTokens=[10.0, "NaN", 500.0]), "expected_tokens must be finite"),
    "calibration holds infinity": (knots(scores=["-Infinity", 0.0, 1.0]), "scores must be finite"),
    "quantiles decrease": (knots(quantiles=[0.0, 0.5, 0.4]), "quantiles must never decrease"),
    "quantiles exceed 1": (knots(quantiles=[0.0, 0.5, 1.5]), r"quantiles must lie in \[0, 1\]"),
    "expected tokens decrease": (knots(expectedTokens=[10.0, 9.0, 500.0]), "expected_tokens must never decrease"),
    "expected tokens are negative": (knots(expectedTokens=[-1.0, 9.0, 500.0]), "expected_tokens must not be negative"),
    "p90 is below the median": (knots(expectedTokensP90=[5.0, 300.0, 900.0]), "must not be below expected_tokens"),
    "n-gram calibration is missing": (edit_inside("ngram", calibration=None), "ngram.calibration: at least 2 knots"),
    "no golden prompts": (edit(goldenPrompts=None), "golden_prompts is empty"),
    "golden tolerance is missing": (edit(goldenTolerance=None), "golden_tolerance must be a number greater than zero"),
    "golden tolerance is NaN": (edit(goldenTolerance="NaN"), "golden_tolerance must be a number greater than zero"),
    "a golden score is NaN": (edit(goldenPrompts=[{**GOLDEN, "score": "NaN"}]), "a score that is not finite"),
    "a golden n-gram score is missing": (
        edit(goldenPrompts=[{"prompt": "long", "score": 2.0}]),
        "must have an ngram_score exactly",
    ),
    "n-gram buckets are no power of two": (edit_inside("ngram", bucketCount=63), "bucket_count must be a power of two"),
    "n-gram weights have another length": (ngram_file(np.zeros(5, dtype=np.float32)), r"float32\[5\], float32\[66\] is wanted"),
    "n-gram weights have another type": (ngram_file(np.zeros(66)), r"float64\[66\], float32\[66\] is wanted"),
    "n-gram weights are not finite": (ngram_file(not_finite()), "ngram.npy holds values that are not finite"),
    "n-gram weights are pickled": (ngram_file(np.array([{}], dtype=object)), "ngram.npy is not a NumPy vector"),
    "n-gram weights are junk": (ngram_file(content=b"junk"), "ngram.npy is not a NumPy vector"),
    "n-gram weights are empty": (ngram_file(content=b""), "ngram.npy is not a NumPy vector"),
    "n-gram weights are an archive": (ngram_archive, "ngram.npy is not a NumPy vector"),
}


@pytest.mark.parametrize(("damage", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_damaged_bundle_is_refused_with_its_own_message(own_bundle: Path, damage: Damage, message: str) -> None:
    damage(own_bundle)
    with pytest.raises(BundleError, match=message) as raised:
        open_bundle(own_bundle)
    assert str(own_bundle) in str(raised.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere: no such folder"):
        open_bundle(tmp_path / "nowhere")


def test_an_unreadable_file_is_named(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by mode bits: tests may run as root, who reads everything.
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == "model.onnx":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BundleError, match=r"model.onnx cannot be read: Permission denied"):
        open_bundle(own_bundle)


def test_a_good_bundle_opens(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    assert bundle.model_path == tiny_bundle / "model.onnx"
    assert bundle.tokenizer_path == tiny_bundle / "tokenizer.json"
    assert bundle.bundle_id == bundle.manifest.bundle_id == bundle_id_of(read_manifest(tiny_bundle))
    assert bundle.ngram_weights is not None
    assert bundle.ngram_weights.shape == (66,)


def test_a_bundle_without_ngram_weights_opens(tmp_path: Path) -> None:
    assert open_bundle(make_bundle(tmp_path / "bundle", with_ngram=False)).ngram_weights is None


def test_links_inside_the_folder_are_followed(own_bundle: Path) -> None:
    # A Kubernetes volume: every name links into a hidden folder beside it.
    hidden = own_bundle / "..data"
    hidden.mkdir()
    (own_bundle / "model.onnx").rename(hidden / "model.onnx")
    (own_bundle / "model.onnx").symlink_to(Path("..data") / "model.onnx")
    assert open_bundle(own_bundle).model_path.is_file()


def test_the_id_covers_everything_but_itself(own_bundle: Path) -> None:
    manifest = read_manifest(own_bundle)
    assert bundle_id_of({**manifest, "bundleId": "0" * 16}) == manifest["bundleId"]
    assert bundle_id_of(dict(reversed(manifest.items()))) == manifest["bundleId"]
    assert bundle_id_of({**manifest, "licence": "MIT"}) != manifest["bundleId"]


def test_the_id_does_not_depend_on_layout(own_bundle: Path) -> None:
    path = own_bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert open_bundle(own_bundle).bundle_id == read_manifest(own_bundle)["bundleId"]


def test_a_relative_folder_works(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_bundle.parent)
    assert open_bundle(Path(os.path.relpath(own_bundle))).manifest.files[0] == open_bundle(own_bundle).manifest.files[0]
    assert file_entry(own_bundle / "model.onnx")["path"] == "model.onnx"


def test_a_link_is_followed_once(tmp_path: Path) -> None:
    """What is opened after the check is what was checked, wherever the link leads by then."""
    one, two = make_bundle(tmp_path / "one"), make_bundle(tmp_path / "two", name="two")
    link = tmp_path / "current"
    link.symlink_to(one)
    bundle = open_bundle(link)
    link.unlink()
    link.symlink_to(two)
    assert bundle.model_path == one / "model.onnx"
