"""Swapping bundles: the reloader around fake models, and a real process that gets SIGHUP while callers score."""

import asyncio
import dataclasses
import gc
import signal
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import grpc
import pytest
import sidecar_tiny
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sidecar_process import Callers, StartSidecar
from sidecar_rig import FIXED_COST, WAIT_S, HeldScorer, Rig, until

from pars.v1 import bundle_pb2, ranker_pb2, ranker_pb2_grpc
from sidecar.errors import BundleError, NotServingError
from sidecar.health import LIFECYCLE, Health, ranker_component
from sidecar.loading import LoadedRanker, go_live, load_ranker
from sidecar.observer import Observer
from sidecar.rankers import LiveRanker, Rankers
from sidecar.reload import Reloader, on_a_thread
from sidecar.settings import Settings

MakeRig = Callable[..., Rig]
FOLDER = Path("anywhere")


class Reloads:
    """A reloader around a rig. `next_bundle` is what the folder holds now: a bundle id, or what loading raises."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.next_bundle: str | Exception = "fedcba9876543210"
        self.no_threads = False
        self.loading, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.scorer = HeldScorer()
        self.scorer.run_free()
        self.reloader = Reloader(rig.rankers, {"default": FOLDER}, self._load, self._go_live, rig.observer)

    def _load(self, folder: Path) -> LoadedRanker:
        assert folder == FOLDER
        self.loading.set()
        assert self.go.wait(WAIT_S), "the test never let this bundle go"
        if isinstance(self.next_bundle, Exception):
            raise self.next_bundle
        # What the reloader reads of it is the id; the rest is handed through.
        manifest = bundle_pb2.BundleManifest(bundle_id=self.next_bundle)
        return LoadedRanker(dataclasses.replace(self.rig.rankers.get("").ranker, manifest=manifest), FIXED_COST)

    def _go_live(self, name: str, loaded: LoadedRanker) -> LiveRanker:
        if self.no_threads:
            raise RuntimeError("can't start new thread")
        return self.rig.make_live(self.scorer, loaded.ranker.manifest.bundle_id, name)

    async def reload(self) -> None:
        await asyncio.wait_for(self.reloader.reload("default", FOLDER), WAIT_S)


async def test_a_new_bundle_takes_over_and_the_old_one_is_closed_after_its_last_call(make_rig: MakeRig) -> None:
    rig = make_rig()
    reloads = Reloads(rig)
    old_call = await rig.running(1)
    await reloads.reload()
    assert rig.observer.reloads == [("default", "swapped")]
    assert (await asyncio.wait_for(await rig.call(2), WAIT_S)).bundle_id == "fedcba9876543210"
    rig.scorer.run_free()
    assert (await asyncio.wait_for(old_call, WAIT_S)).bundle_id == "0123456789abcdef"
    await until(lambda: not any(thread.is_alive() for thread in rig.runner.threads))
    await asyncio.wait_for(reloads.reloader.close(), WAIT_S)
    await rig.assert_clean()


async def test_a_broken_bundle_is_refused_and_the_old_one_goes_on(make_rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    rig = make_rig()
    rig.scorer.run_free()
    reloads = Reloads(rig)
    for error, why in [(BundleError("model.onnx\nis missing"), "model.onnx is missing"), (KeyError("x"), "a bug in ours")]:
        reloads.next_bundle = error
        await reloads.reload()
        assert why in caplog.records[-1].message
        assert (await asyncio.wait_for(await rig.call(1), WAIT_S)).bundle_id == "0123456789abcdef"
    assert rig.observer.reloads == [("default", "refused")] * 2
    await rig.assert_clean()


async def test_the_same_bundle_is_left_alone(make_rig: MakeRig) -> None:
    rig = make_rig()
    reloads = Reloads(rig)
    reloads.next_bundle = "0123456789abcdef"
    await reloads.reload()
    assert rig.observer.reloads == [("default", "unchanged")]
    assert len(rig.runners) == 1


async def test_requests_during_a_reload_make_one_more(make_rig: MakeRig) -> None:
    rig = make_rig()
    reloads = Reloads(rig)
    reloads.next_bundle = "0123456789abcdef"
    reloads.go.clear()
    running = asyncio.create_task(reloads.reloader.run())
    reloads.reloader.request()
    await until(reloads.loading.is_set)
    for _ in range(3):
        reloads.reloader.request()
    reloads.go.set()
    await until(lambda: len(rig.observer.reloads) == 2)
    assert rig.observer.reloads == [("default", "unchanged")] * 2
    running.cancel()
    await asyncio.wait((running,))


async def test_a_bundle_that_cannot_go_live_is_refused_and_the_next_one_is_not(make_rig: MakeRig) -> None:
    rig = make_rig()
    reloads = Reloads(rig)
    reloads.no_threads = True
    await reloads.reload()
    reloads.no_threads = False
    await reloads.reload()
    assert rig.observer.reloads == [("default", "refused"), ("default", "swapped")]
    await asyncio.wait_for(reloads.reloader.close(), WAIT_S)


async def test_a_stop_answers_those_who_still_wait_for_a_replaced_ranker(make_rig: MakeRig) -> None:
    rig = make_rig()
    reloads = Reloads(rig)
    held = await rig.running(1)
    await reloads.reload()
    close = asyncio.ensure_future(rig.engine.close())
    with pytest.raises(NotServingError):
        await rig.answer(held)
    rig.scorer.run_free()
    await asyncio.wait_for(close, WAIT_S)
    await asyncio.wait_for(reloads.reloader.close(), WAIT_S)
    await rig.assert_clean()


def bundle_link(link: Path, bundle: Path) -> None:
    """Point a link at another bundle, in one step, as a deployment does."""
    fresh = link.with_suffix(".new")
    fresh.symlink_to(bundle)
    fresh.rename(link)


def get_bundle(stub: ranker_pb2_grpc.RankerServiceStub, ranker: str = "") -> ranker_pb2.GetBundleResponse:
    return stub.GetBundle(ranker_pb2.GetBundleRequest(ranker=ranker), timeout=WAIT_S)


def test_a_process_swaps_refuses_and_goes_on_while_callers_score(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    """1. serves one bundle under load 2. SIGHUP: serves the other one 3. SIGHUP on a broken one: goes on
    4. SIGHUP on the first: serves that again 5. no call failed, and each reply's id was one that served at the time."""
    one = sidecar_tiny.make_bundle(tmp_path / "one")
    two = sidecar_tiny.make_bundle(tmp_path / "two", name="another")
    broken = sidecar_tiny.make_bundle(tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no model")
    link = tmp_path / "current"
    bundle_link(link, one)
    sidecar = start_sidecar(link, "--address", "127.0.0.1:0")
    with grpc.insecure_channel(sidecar.serving()) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        first = get_bundle(stub).manifest.bundle_id
        with Callers(stub) as callers:
            callers.wait_for(first)
            bundle_link(link, two)
            sidecar.signal(signal.SIGHUP)
            sidecar.wait_for(r"swapped ranker=default bundle=[0-9a-f]{16}, before it bundle=" + first)
            second = get_bundle(stub).manifest.bundle_id
            assert second != first
            callers.wait_for(second)
            bundle_link(link, broken)
            sidecar.signal(signal.SIGHUP)
            sidecar.wait_for(rf"reload refused, bundle={second} goes on ranker=default: bundle .*: model.onnx has 8 bytes")
            assert get_bundle(stub).manifest.bundle_id == second
            bundle_link(link, one)
            sidecar.signal(signal.SIGHUP)
            sidecar.wait_for(rf"swapped ranker=default bundle={first}, before it bundle={second}")
            callers.wait_for(first)
    assert callers.failed == []
    assert callers.bundle_ids == [first, second, first]
    sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == 0


def test_several_rankers_serve_and_are_swapped_apart(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    """1. a default and a named ranker 2. requests choose 3. an unknown name is refused 4. a swap of one leaves the other alone"""
    default = sidecar_tiny.make_bundle(tmp_path / "default")
    link = tmp_path / "named"
    bundle_link(link, sidecar_tiny.make_bundle(tmp_path / "a", name="a"))
    sidecar = start_sidecar(default, "--rankers", f"org/llm-8b={link}", "--address", "127.0.0.1:0")
    with grpc.insecure_channel(sidecar.serving()) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        before = {name: get_bundle(stub, name) for name in ("", "default", "org/llm-8b")}
        assert before[""].rankers == ["default", "org/llm-8b"]
        assert [reply.ranker for reply in before.values()] == ["default", "default", "org/llm-8b"]
        ids = {name: reply.manifest.bundle_id for name, reply in before.items()}
        assert len(set(ids.values())) == 2
        for name, bundle_id in ids.items():
            reply = stub.Score(ranker_pb2.ScoreRequest(prompts=["x"], ranker=name), timeout=WAIT_S)
            assert reply.bundle_id == bundle_id
            pair = ranker_pb2.PromptPair(prompt_a="x", prompt_b="y")
            assert stub.Compare(ranker_pb2.CompareRequest(pairs=[pair], ranker=name), timeout=WAIT_S).bundle_id == bundle_id
        with pytest.raises(grpc.RpcError) as refused:
            stub.Score(ranker_pb2.ScoreRequest(prompts=["x"], ranker="secret name"), timeout=WAIT_S)
        call = cast(grpc.Call, refused.value)
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "secret" not in str(call.details())
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="ranker/org/llm-8b")
        assert health.Check(request, timeout=WAIT_S).status == health_pb2.HealthCheckResponse.SERVING
        bundle_link(link, sidecar_tiny.make_bundle(tmp_path / "b", name="b"))
        sidecar.signal(signal.SIGHUP)
        sidecar.wait_for("reload found the same bundle=.* ranker=default")
        sidecar.wait_for("swapped ranker=org/llm-8b")
        assert get_bundle(stub).manifest.bundle_id == ids[""]
        assert get_bundle(stub, "org/llm-8b").manifest.bundle_id not in ids.values()
    sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == 0


async def test_a_replaced_model_leaves_the_memory_without_the_garbage_collectors_help(tmp_path: Path) -> None:
    """The collector hardly ever looks at old objects, and a model is a hundred megabytes."""
    settings = Settings(bundle=str(sidecar_tiny.make_bundle(tmp_path / "one")), provider="cpu", workers=1)
    two = sidecar_tiny.make_bundle(tmp_path / "two", name="two")
    health = Health(LIFECYCLE, ranker_component("default"))
    load, start = (
        partial(load_ranker, settings=settings),
        partial(go_live, settings=settings, health=health, observer=Observer()),
    )
    rankers = Rankers({"default": start("default", load(tmp_path / "one"))})
    old = weakref.ref(rankers.get("").ranker.encoder.scorer)
    gc.collect()
    gc.disable()
    try:
        reloader = Reloader(rankers, {"default": two}, load, start, Observer())
        await asyncio.wait_for(reloader.reload("default", two), WAIT_S)
        await until(lambda: old() is None)
    finally:
        gc.enable()
    await reloader.close()
    await rankers.close()


async def test_leaving_does_not_wait_for_a_load() -> None:
    """As asyncio.run would for its own threads, and without a limit."""
    go = threading.Event()
    load = asyncio.create_task(on_a_thread(lambda: go.wait(WAIT_S)))
    await until(lambda: any(thread.name == "reload" for thread in threading.enumerate()))
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "reload")
    load.cancel()
    await asyncio.wait((load,))
    assert load.cancelled()
    go.set()
    await until(lambda: not any(thread.name == "reload" for thread in threading.enumerate()))


async def test_what_a_load_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(on_a_thread(lambda: 1 / 0), WAIT_S)
