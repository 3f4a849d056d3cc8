"""soak's bundles: a second valid one, broken ones that cannot serve, a link from one to another."""

from pathlib import Path

import pytest

from benchmarks.soak.bundles import broken_bundles, point, read_bundle_id
from sidecar.bundle import open_bundle
from sidecar.errors import StartError
from sidecar.ranker import Ranker


def test_the_second_bundle_is_valid_and_says_other_tokens(bundles: tuple[Path, Path]) -> None:
    first, second = map(open_bundle, bundles)
    assert first.bundle_id != second.bundle_id == read_bundle_id(bundles[1])
    tokens = list(first.manifest.encoder_calibration.expected_tokens)
    assert list(second.manifest.encoder_calibration.expected_tokens) == [2 * each for each in tokens]
    Ranker.load(bundles[1], "cpu", 1)


def test_no_broken_bundle_can_serve_and_the_original_stays_whole(tiny_bundle: Path, tmp_path: Path) -> None:
    broken = broken_bundles(tiny_bundle, tmp_path)
    assert len(broken) == 5
    for folder in broken.values():
        with pytest.raises(StartError):
            Ranker.load(folder, "cpu", 1)
    Ranker.load(tiny_bundle, "cpu", 1)


def test_a_link_moves_from_one_bundle_to_another(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    link = tmp_path / "link"
    for bundle in (*bundles, tmp_path / "nothing"):
        point(link, bundle)
        assert link.resolve() == bundle.resolve()
