"""Rude clients against a real process: while they rage every call of a polite one is answered, and afterwards nothing of them is left."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import sidecar_tiny
from sidecar_process import WAIT_S, Sidecar
from sidecar_rude import ATTACKS, Attack, Target

from pars.v1 import ranker_pb2, ranker_pb2_grpc

BETWEEN_CALLS_S = 0.005
BREATH_S = 0.1
CALLS_OF_A_NEW_CONNECTION = 5
SPARE = 8
"""Files and threads that gRPC opens on its own account during a busy time and keeps."""

GRACE_S = 3


@dataclass
class Started:
    """A sidecar process, and what the kernel says of it."""

    process: Sidecar
    address: str

    @property
    def files(self) -> int:
        return self._entries("fd")

    @property
    def threads(self) -> int:
        return self._entries("task")

    def _entries(self, folder: str) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.process.pid}/{folder}").iterdir())


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Started]:
    process = Sidecar(sidecar_tiny.make_bundle(folder / "bundle"), f"--grace-s={GRACE_S}", "--workers=1", *arguments)
    try:
        yield Started(process, process.serving())
    finally:
        process.close()


@pytest.fixture(scope="module")
def over_tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """One process for all attacks, which it has to outlive."""
    with started(tmp_path_factory.mktemp("rude"), "--address", "127.0.0.1:0") as server:
        yield server


async def polite_calls(address: str, calls: int) -> list[grpc.StatusCode]:
    """The status of each of so many calls, on one channel that stays and on new ones in between."""
    codes = []
    async with grpc.aio.insecure_channel(address) as kept:
        for number in range(calls):
            async with contextlib.AsyncExitStack() as stack:
                channel = kept
                if number % CALLS_OF_A_NEW_CONNECTION == 0:
                    options = [("grpc.use_local_subchannel_pool", 1)]
                    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options))
                codes.append(await score(channel))
            await asyncio.sleep(BETWEEN_CALLS_S)
    return codes


async def score(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """OK only for the right answer."""
    request = ranker_pb2.ScoreRequest(prompts=["very long"], tier=ranker_pb2.TIER_ENCODER)
    try:
        reply = await ranker_pb2_grpc.RankerServiceStub(channel).Score(request, timeout=WAIT_S)
    except grpc.aio.AioRpcError as error:
        return error.code()
    assert [answer.score for answer in reply.scores] == [2.25]
    return grpc.StatusCode.OK


async def raging(attack: Attack, target: Target, calm: asyncio.Event) -> int:
    """Attack again and again, with a breath in between, until it is calm; how often."""
    times = 0
    while not calm.is_set():
        await attack(target)
        times += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(calm.wait(), BREATH_S)
    return times


async def rage(address: str, *attacks: Attack, calls: int, bearable: Sequence[grpc.StatusCode] = ()) -> None:
    """All of these attacks at once, each at least once, while a polite client calls. Some of its calls may end with what is bearable."""
    calm, target = asyncio.Event(), Target(address)
    rude = [asyncio.ensure_future(raging(attack, target, calm)) for attack in attacks]
    codes = await polite_calls(address, calls)
    calm.set()
    assert set(codes) <= {grpc.StatusCode.OK, *bearable}, codes
    assert grpc.StatusCode.OK in codes
    assert min(await asyncio.gather(*rude)) >= 1


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the kernel counts and nothing announces."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_a_polite_client_is_answered_whatever_another_does(over_tcp: Started, attack: Attack) -> None:
    """1. a rude client rages 2. each polite call is answered 3. no file of the rude one's stays open."""
    assert set(await polite_calls(over_tcp.address, CALLS_OF_A_NEW_CONNECTION)) == {grpc.StatusCode.OK}
    before = over_tcp.files
    await rage(over_tcp.address, attack, calls=40)
    await until(lambda: over_tcp.files <= before + SPARE)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_all_of_them_at_once_and_a_stop_in_the_middle(tmp_path: Path, kind: str) -> None:
    """1. every attack rages at once 2. polite calls are still answered 3. files and threads are as before 4. they rage again and a
    SIGTERM comes 5. the process ends within its grace, with code 0."""
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/pars.sock"
    with started(tmp_path, "--address", address) as server:
        await polite_calls(server.address, CALLS_OF_A_NEW_CONNECTION)
        files, threads = server.files, server.threads
        # On cores that all of this has worn out, gRPC's core gives up on some calls by itself.
        await rage(
            server.address, *ATTACKS.values(), calls=10, bearable=(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
        )
        await until(lambda: server.files <= files + SPARE and server.threads <= threads + SPARE)
        calm, target = asyncio.Event(), Target(server.address)
        rude = [asyncio.ensure_future(raging(attack, target, calm)) for attack in ATTACKS.values()]
        await polite_calls(server.address, CALLS_OF_A_NEW_CONNECTION)
        server.process.signal(signal.SIGTERM)
        async with asyncio.timeout(GRACE_S + WAIT_S):
            code = await asyncio.to_thread(server.process.exit_code)
        calm.set()
        ends = await asyncio.gather(*rude, return_exceptions=True)
    assert code == 0
    assert all(isinstance(end, int | OSError) for end in ends), ends  # nobody listens any more
