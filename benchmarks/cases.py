"""What is measured, as data: the cases in the order of a round, and the ratios between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.jobs import AloneJob, FullTiltJob
from benchmarks.measurement import Row, Spread, best, ratio

GROUP_PROMPTS = 32

CPU_BATCHES = (1, 2, 4, 8, 16, 32)
CUDA_BATCHES = (*CPU_BATCHES, 64, 128)
SMOKE_BATCHES = (1, 8)

BARE_SHARE = 0.25
"""Of a case's seconds that each bare batch size gets: there are many of them, and they make whole passes anyway."""


@dataclass(frozen=True, slots=True)
class BareCase:
    """A case of the bare session."""

    name: str
    what: str
    job: AloneJob | FullTiltJob


@dataclass(frozen=True, slots=True)
class ServedCase:
    """A case of a sidecar. over: which of the two sidecars. via, callers, prompts_per_call, ngram: as in CallsJob."""

    name: str
    what: str
    over: Literal["unix", "tcp"]
    via: Literal["sync", "asyncio", "stream"]
    callers: int
    prompts_per_call: int = 1
    ngram: bool = False


@dataclass(frozen=True, slots=True)
class PeerCase:
    """A case of a peer. peer: its name in benchmarks.peers.registry. callers, prompts_per_call: as in HttpJob."""

    name: str
    what: str
    peer: str
    callers: int
    prompts_per_call: int = 1


Case = BareCase | ServedCase | PeerCase

SHAPES = {"1_caller": (1, 1), "8_callers": (8, 1), "64_callers": (64, 1), "4_callers_32_prompts": (4, GROUP_PROMPTS)}
"""Callers and prompts per call, that the sidecar and its peers are compared at."""


def cases_of_a_round(seconds: float, batch_sizes: Sequence[int], *, has_ngram: bool) -> list[Case]:
    """All cases. What is compared stands close together, so that both sides see the same machine."""
    alone: list[Case] = [
        BareCase("bare_run", "bare: run, batch 1", AloneJob(seconds, tokenize=False, cores="one")),
        BareCase("bare_tokenize_and_run", "bare: tokenise + run, batch 1", AloneJob(seconds, tokenize=True, cores="one")),
        ServedCase("ours_1_caller", "ours: 1 caller, unix socket", "unix", "sync", 1),
        ServedCase("ours_1_caller_tcp", "ours: 1 caller, TCP", "tcp", "sync", 1),
        ServedCase("ours_1_caller_asyncio", "ours: 1 caller, unix socket, asyncio client", "unix", "asyncio", 1),
        BareCase(
            "bare_tokenize_and_run_all_cores",
            "bare: tokenise + run, batch 1, all cores",
            AloneJob(seconds, tokenize=True, cores="all"),
        ),
    ]
    ngram = [ServedCase("ours_ngram_1_caller", "ours: 1 caller, n-gram tier", "unix", "sync", 1, ngram=True)]
    share = seconds * BARE_SHARE
    whole = [
        BareCase(f"bare_batches_of_{size}", f"bare: all sorted, batches of {size}", FullTiltJob(share, size, 0))
        for size in batch_sizes
    ]
    grouped = [
        BareCase(
            f"bare_groups_in_batches_of_{size}",
            f"bare: each {GROUP_PROMPTS} sorted, batches of {size}",
            FullTiltJob(share, size, GROUP_PROMPTS),
        )
        for size in batch_sizes
        if 1 < size <= GROUP_PROMPTS  # of one prompt each, they are the same as above
    ]
    many = [
        ServedCase("ours_8_callers", "ours: 8 callers", "unix", "asyncio", 8),
        ServedCase("ours_64_callers", "ours: 64 callers", "unix", "asyncio", 64),
        ServedCase("ours_stream_64_items", "ours: one stream, 64 items", "unix", "stream", 64),
        ServedCase("ours_4_callers_32_prompts", "ours: 4 callers x 32 prompts", "unix", "asyncio", 4, GROUP_PROMPTS),
    ]
    return [*alone, *(ngram if has_ngram else []), *whole, *many, *grouped]


def cases_beside_peers(peers: Sequence[str]) -> list[ServedCase | PeerCase]:
    """Shape by shape, ours and then every peer: over TCP and from asyncio all of them, so that only the server differs."""
    cases: list[ServedCase | PeerCase] = []
    for shape, (callers, prompts) in SHAPES.items():
        what = shape.replace("_", " ").replace("s 32", "s x 32")
        cases.append(ServedCase(f"ours_tcp_{shape}", f"ours: {what}, TCP, asyncio client", "tcp", "asyncio", callers, prompts))
        cases += [PeerCase(f"{peer}_{shape}", f"{peer}: {what}", peer, callers, prompts) for peer in peers]
    return cases


def peer_ratios(rows: Mapping[str, Row], peers: Sequence[str]) -> dict[str, Spread | None]:
    """Ours / peer. Below 1 is better for p50, p99 and CPU, worse for throughput. None where one of the two failed."""
    figures = {"p50": "p50_ms", "p99": "p99_ms", "throughput": "prompts_per_s", "cpu": "scorer_cpu_s_per_1000_prompts"}
    return {
        f"{short}_{shape}_vs_{peer}": ratio(rows[f"ours_tcp_{shape}"], rows[f"{peer}_{shape}"], figure)
        for peer in peers
        for shape in SHAPES
        for short, figure in figures.items()
    }


def limits(rows: Mapping[str, Row]) -> dict[str, Row]:
    """The best bare throughput there is: `all_sorted`, and `groups` when no more than a group may be sorted together."""
    batches_of_1 = [row for name, row in rows.items() if name == "bare_batches_of_1"]
    whole = best([row for name, row in rows.items() if name.startswith("bare_batches_of_")], "prompts_per_s")
    groups = [row for name, row in rows.items() if name.startswith("bare_groups_in_batches_of_")]
    grouped = best(batches_of_1 + groups, "prompts_per_s")
    return {name: row for name, row in (("all_sorted", whole), ("groups", grouped)) if row is not None}


def ratios_of(rows: Mapping[str, Row]) -> dict[str, Spread | None]:
    """Ours / bare. Below 1 is better for p50 and p99, worse for throughput. None where one of the two failed."""
    limit = limits(rows)
    wanted = {
        "p50_vs_bare_run": ("ours_1_caller", "bare_run", "p50_ms"),
        "p99_vs_bare_run": ("ours_1_caller", "bare_run", "p99_ms"),
        "p50_vs_bare_tokenize_and_run": ("ours_1_caller", "bare_tokenize_and_run", "p50_ms"),
        "p99_vs_bare_tokenize_and_run": ("ours_1_caller", "bare_tokenize_and_run", "p99_ms"),
        "p50_tcp_vs_bare_tokenize_and_run": ("ours_1_caller_tcp", "bare_tokenize_and_run", "p50_ms"),
        "p99_tcp_vs_bare_tokenize_and_run": ("ours_1_caller_tcp", "bare_tokenize_and_run", "p99_ms"),
        "p50_vs_bare_tokenize_and_run_all_cores": ("ours_1_caller", "bare_tokenize_and_run_all_cores", "p50_ms"),
        "throughput_8_callers_vs_bare": ("ours_8_callers", "all_sorted", "prompts_per_s"),
        "throughput_64_callers_vs_bare": ("ours_64_callers", "all_sorted", "prompts_per_s"),
        "stream_vs_bare": ("ours_stream_64_items", "all_sorted", "prompts_per_s"),
        "throughput_32_prompt_batches_vs_bare": ("ours_4_callers_32_prompts", "all_sorted", "prompts_per_s"),
        "throughput_32_prompt_batches_vs_bare_groups": ("ours_4_callers_32_prompts", "groups", "prompts_per_s"),
    }
    known = {**rows, **limit}
    return {
        name: ratio(known[ours], known[bare], figure) if ours in known and bare in known else None
        for name, (ours, bare, figure) in wanted.items()
    }
