"""Fuzz one target for some seconds: `python tests/fuzz/run_fuzz.py TARGET SECONDS`. Needs atheris; `make fuzz` brings it.

Starts from `corpus/TARGET`, which it does not change. What is new goes to `findings/TARGET`; a crash is left there too, under
a name that says so, and ends the run with a code that is not zero. A finding that is fixed belongs into the corpus.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import atheris
import json_mutator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SLOW_S = 10
"""Longest that one input may take: no operator waits longer for an answer about one folder, and no input is large."""
MEMORY_MB = 1_500
LARGEST_BYTES = 4_096
JSON_TARGETS = ("manifest", "tokenizer")
WORDS = [line[1:-1].encode().decode("unicode_escape").strip('":') for line in (HERE / "fuzz.dict").read_text().splitlines()[1:]]


def json_mutator_from(seeds: list[bytes]) -> Callable[[bytes, int, int], bytes]:
    """Half of the time from one of the seeds: what lies behind a tokenizer is no Python, so nothing there tells good inputs apart."""

    def mutate(content: bytes, largest_bytes: int, seed: int) -> bytes:
        base = seeds[seed // 2 % len(seeds)] if seed % 2 else content
        # At times as bytes, which also reaches what a broken file does.
        changed = json_mutator.mutate(base, WORDS, seed, largest_bytes) if seed % 8 else None
        return changed or atheris.Mutate(content, largest_bytes)

    return mutate


def main() -> None:
    name, seconds = sys.argv[1:]
    sys.path[:0] = [str(HERE), str(ROOT / "tests" / "sidecar"), str(ROOT), str(ROOT / "proto")]
    with atheris.instrument_imports(include=["sidecar", "pars", "numpy.lib", "google.protobuf", "json"]):
        from fuzz_targets import TARGETS
    found = HERE / "findings" / name
    found.mkdir(parents=True, exist_ok=True)
    seeds = [path.read_bytes() for path in sorted((HERE / "corpus" / name).iterdir())]
    how = {"custom_mutator": json_mutator_from(seeds)} if name in JSON_TARGETS else {}
    atheris.Setup(
        [
            sys.argv[0],
            str(found),
            str(HERE / "corpus" / name),
            f"-artifact_prefix={found}/",
            f"-max_total_time={seconds}",
            f"-timeout={SLOW_S}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-max_len={LARGEST_BYTES}",
            f"-dict={HERE / 'fuzz.dict'}",
            "-print_final_stats=1",
            "-verbosity=0",
            "-use_value_profile=1",
        ],
        TARGETS[name],
        **how,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
