"""The order of a stop, step by step, with a model that is held by the hand."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from sidecar_rig import WAIT_S, Rig
from sidecar_served import Served, StartServed, status_of

from pars.v1 import ranker_pb2
from sidecar.errors import AddressError
from sidecar.ranker import Ranker

MakeRig = Callable[..., Rig]
Code = grpc.StatusCode


def score(served: Served, prompt: str) -> asyncio.Task[tuple[grpc.StatusCode, str]]:
    return asyncio.ensure_future(status_of(served.stub.Score(ranker_pb2.ScoreRequest(prompts=[prompt]), timeout=WAIT_S)))


async def test_admitted_calls_finish_while_new_ones_are_refused(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig()
    served = await start_served(rig)
    admitted = score(served, "x")
    await rig.scorer.started()
    stop = asyncio.ensure_future(served.stop())
    await asyncio.sleep(0)
    assert not served.health.serving
    assert await score(served, "xx") == (Code.UNAVAILABLE, "the server is stopping")
    assert not admitted.done()
    rig.scorer.run_free()
    assert (await admitted)[0] is Code.OK
    await asyncio.wait_for(stop, WAIT_S)
    assert (await score(served, "xxx"))[0] is Code.UNAVAILABLE


async def test_the_end_of_the_grace_answers_everybody(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig()
    served = await start_served(rig)
    running = score(served, "x")
    await rig.scorer.started()
    waiting = score(served, "xx")
    stop = asyncio.ensure_future(served.stop(grace_s=0.05))
    for call in (running, waiting):
        assert await call == (Code.UNAVAILABLE, "the server is stopping")
    rig.scorer.run_free()
    await asyncio.wait_for(stop, WAIT_S)


async def test_a_cut_answers_everybody_at_once(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig()
    served = await start_served(rig)
    call = score(served, "x")
    await rig.scorer.started()
    cut = asyncio.Event()
    served.stopped = True
    stop = asyncio.ensure_future(served.server.stop(1_000.0, cut))
    await asyncio.sleep(0)
    assert not call.done()
    cut.set()
    assert (await call)[0] is Code.UNAVAILABLE
    rig.scorer.run_free()
    await asyncio.wait_for(stop, WAIT_S)


async def test_a_stop_with_nothing_to_do_is_quick_even_with_idle_streams_open(served: Served) -> None:
    stream = served.stub.ScoreStream()
    await stream.write(ranker_pb2.ScoreStreamRequest(id=1, request=ranker_pb2.ScoreRequest(prompts=["long"])))
    await stream.read()
    await asyncio.wait_for(served.stop(grace_s=1_000.0), WAIT_S)
    assert await asyncio.wait_for(stream.code(), WAIT_S) is Code.UNAVAILABLE


async def test_the_address_is_free_again_after_a_stop(start_served: StartServed, tmp_path: Path) -> None:
    path = tmp_path / "pars.sock"
    for address in ("127.0.0.1:0", f"unix:{path}"):
        first = await start_served(address=address)
        again = first.address
        await first.stop()
        second = await start_served(address=again)
        assert second.address == again
        assert (await score(second, "long"))[0] is Code.OK


async def test_a_busy_address_is_refused(start_served: StartServed, served: Served, tiny_ranker: Ranker) -> None:
    with pytest.raises(AddressError, match=f"cannot listen on {served.address}"):
        await start_served(address=served.address)
    assert (await score(served, "long"))[0] is Code.OK


async def test_an_impossible_address_is_refused(start_served: StartServed, tmp_path: Path) -> None:
    with pytest.raises(AddressError, match="cannot listen on"):
        await start_served(address=f"unix:{tmp_path}/{'x' * 200}")
