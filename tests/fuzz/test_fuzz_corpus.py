"""The fuzz targets on their corpus, without a fuzzer: whatever was once found stays fixed. `make fuzz` looks for more."""

import tracemalloc
import warnings
from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from make_corpus import CORPUS, SEEDS

INPUTS = sorted(path for path in CORPUS.glob("*/*"))
LARGEST_PEAK_BYTES = 64 * 1024 * 1024
"""What one input of a few kilobytes may make us allocate; the largest real part is a manifest's 16 MiB."""


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_of_the_corpus_keeps_every_promise(path: Path) -> None:
    tracemalloc.start()
    try:
        # A library's warning about strange content is no fault of ours; an exception is.
        with warnings.catch_warnings(action="ignore"):
            TARGETS[path.parent.name](path.read_bytes())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < LARGEST_PEAK_BYTES


def test_the_corpus_is_what_its_script_writes_and_stays_small() -> None:
    on_disk = {path.relative_to(CORPUS).as_posix(): path.read_bytes() for path in INPUTS if not path.name.startswith("found-")}
    assert on_disk == {f"{target}/{name}": content for target, seeds in SEEDS.items() for name, content in seeds.items()}
    assert {path.parent.name for path in INPUTS} == set(TARGETS)
    assert max(path.stat().st_size for path in INPUTS) <= 2_048
