"""Does a peer serve the same weights? Not believed but asked: the same prompts, alone, together and from several callers at once."""

import asyncio
from collections.abc import Sequence

from benchmarks.closed_loop import TIMEOUT_S
from benchmarks.peers.http import FAILURES, ask, session
from benchmarks.peers.registry import Peer, PeerError

TOLERANCE = 1e-3
"""Of scores in fp32. PyTorch and ONNX Runtime differ by a thousandth of that; other weights, another cut or a forgotten padding mask by
far more."""

CALLERS = 8
"""At once with a prompt each: a server that batches them must give each its own score back."""


def largest_difference(url: str, peer: Peer, prompts: Sequence[str], expected: Sequence[float]) -> float:
    """Between the peer's scores and the expected ones. Raises PeerError when it is above TOLERANCE, or when a call fails."""
    try:
        together, alone = asyncio.run(_ask_both_ways(url, peer, prompts))
    except FAILURES as error:
        raise PeerError(f"{peer.name} failed where its scores were to be compared: {error or type(error).__name__}") from error
    difference = max(abs(one - other) for got in (together, alone) for one, other in zip(got, expected, strict=True))
    if difference > TOLERANCE:
        raise PeerError(
            f"{peer.name} and the bundle differ by {difference:.2g} on {len(prompts)} prompts, more than {TOLERANCE:g}: "
            "not the same weights, or not fp32"
        )
    return difference


async def _ask_both_ways(url: str, peer: Peer, prompts: Sequence[str]) -> tuple[list[float], list[float]]:
    async with session(TIMEOUT_S) as client:
        together = await ask(client, url, peer, prompts)
    alone: dict[int, float] = {}
    waiting = iter(enumerate(prompts))

    async def caller() -> None:
        async with session(TIMEOUT_S) as client:
            for number, prompt in waiting:
                [alone[number]] = await ask(client, url, peer, [prompt])

    # Not a TaskGroup: its exception groups would hide what the failure was.
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return together, [alone[number] for number in range(len(prompts))]
