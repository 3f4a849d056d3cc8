"""What is measured, as data: the cases in the order of a round."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.jobs import AloneJob, AroundJob, EchoJob, FullTiltJob

PARTS = ("limit", "ours", "peers", "best", "open")
"""limit: the bare session. ours: the sidecar. peers: other servers, and the sidecar called as they are. best: the sidecar on another
bundle of the same ranker, called like that too. open: calls at fractions of the limit, whether earlier ones are answered or not.
"""

GROUP_PROMPTS = 32

CPU_BATCHES = (1, 2, 4, 8, 16, 32)
CUDA_BATCHES = (*CPU_BATCHES, 64, 128)
SMOKE_BATCHES = (1, 8)

BARE_SHARE = 0.25
"""Of a case's seconds that each bare batch size gets: there are many of them, and they make whole passes anyway."""

TABLE_SHARE = 0.4
"""Of a case's seconds for those that no named ratio rests on."""

PAUSE_S = 0.0015
"""About what passes between two calls of a closed loop while no model runs. A session that idles so long is slower for it: caches."""

OPEN_SHARE = 0.75

OPEN_LOADS = (0.3, 0.6, 0.9)
MOST_PEER_LOAD = 0.6
SMOKE_OPEN_LOADS = (0.01,)
"""Of a model so small that the limit is far beyond any client."""

OPEN_PEER = "reference"
"""The one peer that is measured in an open loop."""


@dataclass(frozen=True, slots=True)
class BareCase:
    """A case of the bare session."""

    name: str
    what: str
    job: AloneJob | AroundJob | FullTiltJob


@dataclass(frozen=True, slots=True)
class EchoCase:
    """gRPC with nothing behind it."""

    name: str
    what: str
    job: EchoJob


@dataclass(frozen=True, slots=True)
class ServedCase:
    """A case of a sidecar. over: which of the sidecars; unbatched runs each prompt alone. via, callers, prompts_per_call, ngram: as in
    CallsJob.

    share: of a case's seconds. load: of the limit's throughput, in an open loop without `callers`; 0: a closed loop.
    """

    name: str
    what: str
    over: Literal["unix", "tcp", "best", "unbatched"]
    via: Literal["sync", "asyncio", "stream"]
    callers: int
    prompts_per_call: int = 1
    ngram: bool = False
    share: float = 1.0
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class PeerCase:
    """A case of a peer. peer: its name in benchmarks.peers.registry. callers, prompts_per_call: as in HttpJob; the rest as above."""

    name: str
    what: str
    peer: str
    callers: int
    prompts_per_call: int = 1
    share: float = 1.0
    load: float = 0.0


Case = BareCase | EchoCase | ServedCase | PeerCase


@dataclass(frozen=True, slots=True)
class Shape:
    """What ours and its peers are compared at. name: in a ratio's. is_named: a named ratio rests on it."""

    name: str
    callers: int
    prompts_per_call: int = 1
    is_named: bool = False

    @property
    def share(self) -> float:
        """Of a case's seconds. Calls with many prompts take a slow server so long that a part of them would hold none whole."""
        return 1.0 if self.is_named or self.prompts_per_call > 1 else TABLE_SHARE

    @property
    def case(self) -> str:
        """The end of a case's name."""
        callers = f"{self.callers}_caller{'s' * (self.callers > 1)}"
        return callers + (f"_{self.prompts_per_call}_prompts" if self.prompts_per_call > 1 else "")

    @property
    def what(self) -> str:
        callers = f"{self.callers} caller{'s' * (self.callers > 1)}"
        return callers + (f" x {self.prompts_per_call} prompts" if self.prompts_per_call > 1 else "")


SHAPES = (Shape("1", 1), Shape("8", 8), Shape("64", 64, is_named=True), Shape("batch32", 4, GROUP_PROMPTS))


def cases_of_a_round(
    seconds: float,
    batch_sizes: Sequence[int],
    *,
    has_ngram: bool,
    parts: Collection[str] = ("limit", "ours"),
    peers: Sequence[str] = (),
    open_loads: Sequence[float] = OPEN_LOADS,
) -> list[Case]:
    """All cases of the parts asked for. What is compared stands close together, so that both sides see the same machine."""
    around, alone, full_tilt = _limit(seconds, batch_sizes) if "limit" in parts else ([], [], [])
    one, many, ngram = _ours() if "ours" in parts else ([], [], [])
    return [
        *(*around, *alone, *one),
        *(ngram if has_ngram else []),
        *(*full_tilt, *many),
        *_beside_peers(peers if "peers" in parts else (), has_best="best" in parts),
        *(_open(peers, open_loads) if "open" in parts else []),
    ]


def _limit(seconds: float, batch_sizes: Sequence[int]) -> tuple[list[Case], list[Case], list[Case]]:
    """Around a run, one prompt alone, all threads full."""
    short_s, share_s = seconds * TABLE_SHARE, seconds * BARE_SHARE
    around: list[Case] = [
        BareCase("bare_tokenize", "bare: tokenise one prompt", AroundJob(short_s, "tokenise", 1)),
        BareCase(
            f"bare_tokenize_{GROUP_PROMPTS}",
            f"bare: tokenise {GROUP_PROMPTS} prompts",
            AroundJob(short_s, "tokenise", GROUP_PROMPTS),
        ),
        BareCase("bare_serialize", "bare: serialise request and reply of one prompt", AroundJob(short_s, "serialise", 1)),
        EchoCase("bare_grpc_stream", "bare: a gRPC stream, one prompt there and back", EchoJob(short_s)),
    ]
    alone: list[Case] = [
        BareCase("bare_run", "bare: run, batch 1", AloneJob(short_s, tokenize=False, cores="one")),
        BareCase(
            "bare_tokenize_and_run_all_cores",
            "bare: tokenise + run, batch 1, all cores",
            AloneJob(short_s, tokenize=True, cores="all"),
        ),
        BareCase(
            "bare_tokenize_and_run_paused",
            f"bare: tokenise + run, batch 1, {PAUSE_S * 1e3:g} ms idle before each",
            AloneJob(short_s, tokenize=True, cores="one", pause_s=PAUSE_S),
        ),
        BareCase("bare_tokenize_and_run", "bare: tokenise + run, batch 1", AloneJob(seconds, tokenize=True, cores="one")),
    ]
    whole: list[Case] = [
        BareCase(f"bare_batches_of_{size}", f"bare: all sorted, batches of {size}", FullTiltJob(share_s, size, 0))
        for size in batch_sizes
    ]
    grouped = [
        BareCase(
            f"bare_groups_in_batches_of_{size}",
            f"bare: each {GROUP_PROMPTS} sorted, batches of {size}",
            FullTiltJob(share_s, size, GROUP_PROMPTS),
        )
        for size in batch_sizes
        if 1 < size <= GROUP_PROMPTS  # of one prompt each, they are the same as above
    ]
    return around, alone, [*grouped, *whole]


def _ours() -> tuple[list[Case], list[Case], list[Case]]:
    """One caller, many, and the cheap tier."""
    one: list[Case] = [
        ServedCase("ours_1_caller", "ours: 1 caller, unix socket", "unix", "sync", 1),
        ServedCase("ours_1_caller_tcp", "ours: 1 caller, TCP", "tcp", "sync", 1, share=TABLE_SHARE),
        ServedCase(
            "ours_1_caller_asyncio", "ours: 1 caller, unix socket, asyncio client", "unix", "asyncio", 1, share=TABLE_SHARE
        ),
        ServedCase("ours_stream_1_item", "ours: one stream, 1 item", "unix", "stream", 1, share=TABLE_SHARE),
    ]
    many: list[Case] = [
        *_with_and_without_batches(64, share=1.0),
        ServedCase("ours_4_callers_32_prompts", "ours: 4 callers x 32 prompts", "unix", "asyncio", 4, GROUP_PROMPTS),
        ServedCase("ours_stream_64_items", "ours: one stream, 64 items", "unix", "stream", 64),
        *_with_and_without_batches(8, share=TABLE_SHARE),
        # One turn of so many callers takes most of a second.
        *_with_and_without_batches(256, share=1.0),
        ServedCase("ours_4_callers_8_prompts", "ours: 4 callers x 8 prompts", "unix", "asyncio", 4, 8, share=TABLE_SHARE),
        ServedCase("ours_4_callers_128_prompts", "ours: 4 callers x 128 prompts", "unix", "asyncio", 4, 128),
    ]
    ngram: list[Case] = [
        ServedCase("ours_ngram_1_caller", "ours: 1 caller, n-gram tier", "unix", "sync", 1, ngram=True, share=TABLE_SHARE),
        ServedCase("ours_ngram_stream_1_item", "ours: one stream, 1 item, n-gram tier", "unix", "stream", 1, ngram=True),
        ServedCase(
            "ours_ngram_stream_64_items",
            "ours: one stream, 64 items, n-gram tier",
            "unix",
            "stream",
            64,
            ngram=True,
            share=TABLE_SHARE,
        ),
    ]
    return one, many, ngram


def _with_and_without_batches(callers: int, share: float) -> list[Case]:
    batched = ServedCase(f"ours_{callers}_callers", f"ours: {callers} callers", "unix", "asyncio", callers, share=share)
    name, what = f"unbatched_{callers}_callers", f"ours, each prompt alone: {callers} callers"
    return [batched, replace(batched, name=name, what=what, over="unbatched")]


def _beside_peers(peers: Sequence[str], *, has_best: bool) -> list[Case]:
    """Shape by shape, ours and then every peer: over TCP and from asyncio all of them, so that only the server differs."""
    cases: list[Case] = []
    for shape in SHAPES if peers or has_best else ():
        share = shape.share
        asked = (shape.callers, shape.prompts_per_call)
        name, how = f"ours_tcp_{shape.case}", f"{shape.what}, TCP, asyncio client"
        cases.append(ServedCase(name, f"ours: {how}", "tcp", "asyncio", *asked, share=share))
        if has_best:
            cases.append(
                ServedCase(f"best_tcp_{shape.case}", f"ours, best bundle: {how}", "best", "asyncio", *asked, share=share)
            )
        for peer in peers:
            cases.append(PeerCase(f"{peer}_{shape.case}", f"{peer}: {shape.what}", peer, *asked, share=share))
    return cases


def _open(peers: Sequence[str], loads: Sequence[float]) -> list[Case]:
    cases: list[Case] = []
    for load in loads:
        at, percent = f"open loop, {load:g} of the limit", f"{load * 100:.0f}"
        unary = ServedCase(f"ours_open_{percent}", f"ours: {at}", "unix", "asyncio", callers=0, share=OPEN_SHARE, load=load)
        stream = replace(unary, name=f"ours_open_stream_{percent}", what=f"ours: {at}, one stream", via="stream")
        cases += [unary, stream]
        if OPEN_PEER in peers and load <= MOST_PEER_LOAD:
            name, what = f"{OPEN_PEER}_open_{percent}", f"{OPEN_PEER}: {at}"
            cases.append(PeerCase(name, what, OPEN_PEER, callers=0, share=OPEN_SHARE, load=load))
    return cases
