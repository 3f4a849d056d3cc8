"""What a report says of the circumstances of its run, the same in all of them."""

from benchmarks.stamp import Stamp

BUSY_NOTE = "Other work was running when this began (see load_average_1_min): trust the ratios little, the times not at all."
BUSY_SHARE = 0.25
"""Of the allotted cores."""

SMOKE_NOTE = "A smoke run: it shows that the benchmark works and measures nothing."


def circumstances(stamp: Stamp, *, smoke: bool) -> list[str]:
    """Notes, none when there is nothing to say. stamp: made before the run, or its load is the run's own."""
    busy = stamp.machine.load_average_1_min > BUSY_SHARE * stamp.machine.allotted_cores
    return [*([BUSY_NOTE] if busy else []), *([SMOKE_NOTE] if smoke else [])]
