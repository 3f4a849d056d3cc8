"""Pure: rows of one run → its ratios, each taken within a round. Names say figure, callers or shape, and what is below the line."""

from collections.abc import Mapping, Sequence

from benchmarks.bench_overhead.cases import OPEN_PEER, SHAPES
from benchmarks.measurement import Row, Spread, best, ratio

REFERENCE = OPEN_PEER

UNBATCHED_CALLERS = ("8", "64", "256")
"""More than one at a time, or there is nothing to put together."""

OWN, OPEN = ("bare", "ours", "unbatched", "best"), "ours_open"
"""Beginnings of the names of cases without a peer; and of open loops, which may ask for more than there is."""

_SHORT = {"p50": "p50_ms", "p99": "p99_ms", "throughput": "prompts_per_s", "cpu": "scorer_cpu_s_per_1000_prompts"}


def limits(rows: Mapping[str, Row]) -> dict[str, Row]:
    """The best bare throughput there is: `all_sorted`, and `groups` when no more than a group may be sorted together."""
    batches_of_1 = [row for name, row in rows.items() if name == "bare_batches_of_1"]
    whole = best([row for name, row in rows.items() if name.startswith("bare_batches_of_")], "prompts_per_s")
    groups = [row for name, row in rows.items() if name.startswith("bare_groups_in_batches_of_")]
    grouped = best(batches_of_1 + groups, "prompts_per_s")
    return {name: row for name, row in (("all_sorted", whole), ("groups", grouped)) if row is not None}


def ratios_of(rows: Mapping[str, Row], peers: Sequence[str] = ()) -> dict[str, Spread | None]:
    """Ours / the other side. Below 1 is better for p50, p99 and CPU, worse for throughput.

    None where one of the two failed; ratios whose cases were not measured are left out.
    """
    wanted = {**_by_the_limit(), **_by_peers(peers)}
    known = {**rows, **limits(rows)}
    # A limit is missing when all of its rows failed, which is a failure; its rows are missing when nobody asked for them.
    measured = set(rows) | ({"all_sorted", "groups"} if "bare_batches_of_1" in rows else set())
    ratios = {
        name: ratio(known[ours], known[other], figure) if ours in known and other in known else None
        for name, (ours, other, figure) in wanted.items()
        if ours in measured and other in measured
    }
    unbatched = [ratios[name] for callers in UNBATCHED_CALLERS if (name := f"throughput_{callers}_vs_unbatched") in ratios]
    if unbatched:
        # Nobody knows how low a failed one would have been.
        there = [spread for spread in unbatched if spread is not None]
        ratios["lowest_throughput_vs_unbatched"] = min(there) if len(there) == len(unbatched) else None
    if "ours_ngram_stream_1_item" in rows:
        # No ratio, but named among them: the one target that is a time.
        ratios["cheap_p50_ms"] = rows["ours_ngram_stream_1_item"].spread("p50_ms")
    return ratios


def ours_failed(rows: Mapping[str, Row], ratios: Mapping[str, Spread | None], peers: Sequence[str]) -> bool:
    """Whether anything but a peer failed: a call of the bare session or of a sidecar, outside open loops, or a ratio among them."""
    own = [row for name, row in rows.items() if name.startswith(OWN) and not name.startswith(OPEN)]
    by_peers = tuple(f"_vs_{peer}" for peer in peers)
    return any(row.failures or not row.clean_rounds for row in own) or any(
        spread is None for name, spread in ratios.items() if not name.endswith(by_peers)
    )


def _by_the_limit() -> dict[str, tuple[str, str, str]]:
    """Name: ours, the bare session's case or limit, figure."""
    together = {
        "8": "ours_8_callers",
        "64": "ours_64_callers",
        "256": "ours_256_callers",
        "stream64": "ours_stream_64_items",
        "batch8": "ours_4_callers_8_prompts",
        "batch32": "ours_4_callers_32_prompts",
        "batch128": "ours_4_callers_128_prompts",
    }
    wanted = {f"throughput_{name}_vs_limit": (case, "all_sorted", "prompts_per_s") for name, case in together.items()}
    wanted["throughput_batch32_vs_limit_in_groups"] = ("ours_4_callers_32_prompts", "groups", "prompts_per_s")
    for figure in ("p50", "p99"):
        wanted |= {
            f"{figure}_1_vs_limit": ("ours_1_caller", "bare_tokenize_and_run", f"{figure}_ms"),
            f"{figure}_1_tcp_vs_limit": ("ours_1_caller_tcp", "bare_tokenize_and_run", f"{figure}_ms"),
            f"{figure}_1_vs_run": ("ours_1_caller", "bare_run", f"{figure}_ms"),
        }
    wanted["p50_1_vs_limit_all_cores"] = ("ours_1_caller", "bare_tokenize_and_run_all_cores", "p50_ms")
    # The floor of the cheap tier, and what one caller's pauses alone make of the bare session.
    wanted["cheap_p50_vs_grpc"] = ("ours_ngram_stream_1_item", "bare_grpc_stream", "p50_ms")
    wanted["p50_1_vs_limit_paused"] = ("ours_1_caller", "bare_tokenize_and_run_paused", "p50_ms")
    for callers in UNBATCHED_CALLERS:
        ours, alone = f"ours_{callers}_callers", f"unbatched_{callers}_callers"
        wanted[f"throughput_{callers}_vs_unbatched"] = (ours, alone, "prompts_per_s")
        wanted[f"throughput_{callers}_vs_unbatched_session"] = (ours, "bare_batches_of_1", "prompts_per_s")
    return wanted


def _by_peers(peers: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Name: ours over TCP, the peer's case, figure; with the best bundle, by the reference alone."""
    ours = {
        f"{short}_{shape.name}_vs_{peer}": (f"ours_tcp_{shape.case}", f"{peer}_{shape.case}", figure)
        for peer in peers
        for shape in SHAPES
        for short, figure in _SHORT.items()
    }
    best_bundle = {
        f"best_{short}_{shape.name}_vs_{REFERENCE}": (f"best_tcp_{shape.case}", f"{REFERENCE}_{shape.case}", figure)
        for shape in SHAPES
        for short, figure in _SHORT.items()
    }
    return {**ours, **best_bundle}
