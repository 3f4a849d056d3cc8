"""What a new user meets: `python -m benchmarks.chain --out benchmarks/results/chain.json`.

Parts, each on its own with `--only`, each with its own stamp in the report; a part measured again replaces its figures and
leaves the others alone:
  demo     `make demo` in a fresh clone: demo_seconds
  test     `make test` in the same clone: test_seconds and tests
  tau      how well the ranker orders, read from its card: tau
  parity   the checkpoint exported in every precision: parity and bundle_bytes
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chain.fresh_clone import FreshClone, pytest_counts
from benchmarks.chain.measured_bundles import export_all
from benchmarks.chain.report import PART_KEYS, PartError, merged, tables
from benchmarks.chain.tau_table import tau_rows
from benchmarks.flags import some_of
from benchmarks.leaving import signals_leave
from benchmarks.report import write_json
from benchmarks.stamp import CHANGES, REPOSITORY, make_stamp

MODULE = "benchmarks.chain"

DEMO_S, TEST_S = 3600.0, 3600.0
"""Deadlines in seconds. Far above what is wanted: a slow run is a figure, only a hung one is none."""

CLONED = ("demo", "test")


class Chain:
    """The parts. Each returns the keys of PART_KEYS that are its own, or raises PartError. known_tau: rows that are there already."""

    def __init__(
        self, work: Path, checkpoint: Path, ranker_cards: Sequence[Path], known_tau: Sequence[Mapping[str, Any]]
    ) -> None:
        self._work = work
        self._checkpoint = checkpoint
        self._ranker_cards = ranker_cards
        self._known_tau = known_tau
        self._clone: FreshClone | None = None
        self.parts: Mapping[str, Callable[[], dict[str, Any]]] = {
            "demo": self._demo,
            "test": self._test,
            "tau": self._tau,
            "parity": self._parity,
        }

    @property
    def clone(self) -> FreshClone:
        """Made on first use, then shared, as a user makes one clone for both commands."""
        if self._clone is None:
            self._clone = FreshClone.of(REPOSITORY, self._work)
        return self._clone

    def _demo(self) -> dict[str, Any]:
        is_first = not self.clone.has_environment
        done = self.clone.make("demo", DEMO_S)
        return {"demo_seconds": done.seconds, "demo_installed_packages": is_first}

    def _test(self) -> dict[str, Any]:
        is_first = not self.clone.has_environment
        done = self.clone.make("test", TEST_S)
        return {"test_seconds": done.seconds, "test_installed_packages": is_first, "tests": pytest_counts(done.output)}

    def _tau(self) -> dict[str, Any]:
        cards = [self._checkpoint / "ranker.json", *self._ranker_cards]
        read = [row for card in cards for row in tau_rows(card)]
        # Rankers that only somebody else has the cards of: they were read, not measured, so they are as true as before.
        others = [row for row in self._known_tau if row["ranker"] not in {row["ranker"] for row in read}]
        return {"tau": [*read, *others]}

    def _parity(self) -> dict[str, Any]:
        rows = export_all(self._checkpoint, self._work)
        return {"parity": rows, "bundle_bytes": {row["precision"]: row["bundle_bytes"] for row in rows}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 when a part failed; the report then says which, without figures of that part."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    document = json.loads(flags.out.read_text(encoding="utf-8")) if flags.out.exists() else {}
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="pars-chain-") as work:
        chain = Chain(Path(work), flags.checkpoint, flags.ranker_cards, document.get("tau", []))
        # In the order of the chain, whatever the order asked for: the tests run in the environment that the demo made.
        for part in filter(flags.only.__contains__, PART_KEYS):
            print(f"chain: {part}", file=sys.stderr, flush=True)
            stamp = make_stamp(MODULE, given)
            if part in CLONED and stamp.commit.endswith(CHANGES):
                print("chain: changes that are not committed are not in the clone", file=sys.stderr)
                stamp = dataclasses.replace(stamp, commit=stamp.commit.removesuffix(CHANGES))
            try:
                document = merged(document, part, chain.parts[part](), stamp)
            except PartError as error:
                print(f"chain: {part} failed: {error}", file=sys.stderr)
                document = merged(document, part, error, stamp)
                failed = True
            # After every part: hours of measuring must not hang on the last one.
            write_json(flags.out, document)
    print("\n".join(tables(document)))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON report; parts that are in it already stay")
    parser.add_argument(
        "--only",
        type=some_of(tuple(PART_KEYS)),
        default=tuple(PART_KEYS),
        help=f"some of {','.join(PART_KEYS)}, separated by commas (default all)",
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=REPOSITORY / "default_ranker", help="ranker to export (default: the shipped)"
    )
    parser.add_argument(
        "--ranker-cards", type=Path, nargs="*", default=[], help="further ranker.json for the tau table; rows of others stay"
    )
    return parser


if __name__ == "__main__":
    with signals_leave():
        sys.exit(main())
