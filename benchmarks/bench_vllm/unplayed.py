"""What no run of the plan replays, to train a ranker of this traffic's own: `python -m benchmarks.bench_vllm.unplayed --records … --out …`.

A ranker is to be judged on prompts that it has not learned from. So prompts that some run replays are left out here, and their
near-duplicates with them, as the trainer itself keeps them out of its test part.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.bench_vllm.plan import LOADS, REQUESTS, REQUESTS_AT, STARTS
from benchmarks.replay import RecordsError, from_records
from trainer.config import TrainConfig
from trainer.errors import DataError
from trainer.local import LocalSource
from trainer.records import Records
from trainer.split import seen_before


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: the rest of the records is written, as Parquet; 1: they cannot be read, or nothing is left."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_vllm.unplayed", description=__doc__.split("\n\n")[0])
    parser.add_argument("--records", type=Path, required=True, help="what bench_vllm replays: prompt and response_tokens")
    parser.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    flags = parser.parse_args(arguments)
    try:
        records = LocalSource.of_records(flags.records).load()
        rest = unplayed(records, replayed_prompts(flags.records))
        rest.save(flags.out)
    except (RecordsError, DataError, OSError) as error:
        print(f"unplayed: {error}", file=sys.stderr)
        return 1
    print(f"{flags.out}: {len(rest):,} of {len(records):,} records are, or are nearly, in no run")
    return 0


def replayed_prompts(records: Path) -> list[str]:
    """Of all runs of the plan, as its own settings have it. Raises RecordsError."""
    counts = {REQUESTS_AT.get(load, REQUESTS) for load in LOADS}
    replays = [from_records(records, count, seed) for count in sorted(counts) for seed in range(STARTS)]
    return sorted({request.prompt for replay in replays for request in replay.requests})


def unplayed(records: Records, replayed: Sequence[str]) -> Records:
    """Raises DataError when nothing is left."""
    seen = seen_before(records.prompt, replayed, TrainConfig().similarity)
    return records.take(np.flatnonzero(~seen).tolist())


if __name__ == "__main__":
    sys.exit(main())
