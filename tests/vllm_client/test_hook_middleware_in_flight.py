"""A request between its arrival and the end of its response: scored by a real server, cancelled, counted by the load gate."""

import asyncio

import pytest
from asgi_rig import TIMEOUT_S, Exchange, LivingApp, body_messages, http_scope, live
from hook_rig import until
from middleware_rig import NEUTRAL, NOW_MS, made

from vllm_client import HookSettings
from vllm_client.hook.decision import Outcome
from vllm_client.hook.middleware import HELD_BODIES


async def test_a_scored_request(ranker):
    app, middleware = made(LivingApp(), address=ranker.address, gate_in_flight=0, deadline_ms=20_000)
    async with live(middleware):
        await until(lambda: middleware._hook.connected)
        await Exchange(body_messages(b'{"messages": [{"role":"user",', b'"content":"0123456789"}]}')).run(
            middleware, http_scope("/v1/chat/completions")
        )
    assert app.priority == str(NOW_MS + 4_000), "a tenth of the window, by the scripted quantile"
    assert app.life == ["lifespan.startup", "lifespan.shutdown"]
    assert not middleware._hook.connected


async def test_a_host_without_lifespan_starts_with_its_first_request(ranker):
    app, middleware = made(address=ranker.address, gate_in_flight=0, deadline_ms=20_000)
    await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope())
    assert app.priority == NEUTRAL, "there is no connection yet, and nobody waits for one"
    await until(lambda: middleware._hook.connected)
    app.scopes.clear()
    await Exchange(body_messages(b'{"prompt": "0123456789"}')).run(middleware, http_scope())
    assert app.priority == str(NOW_MS + 4_000)
    await middleware._hook.close()


async def test_a_request_that_is_cancelled_while_it_is_asked_about_never_reaches_the_application(ranker):
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer_the_probe_alone(item):
        if list(item.request.prompts) == ["a"]:
            loop.call_soon_threadsafe(asked.set)
            return None
        return answer_all(item)

    answer_all, ranker.answer_item = ranker.answer_item, answer_the_probe_alone
    app, middleware = made(LivingApp(), address=ranker.address, gate_in_flight=0, deadline_ms=20_000)
    async with live(middleware):
        await until(lambda: middleware._hook.connected)
        task = asyncio.create_task(Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope()))
        await asyncio.wait_for(asked.wait(), TIMEOUT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert app.scopes == []
        assert middleware._hook.counters.gauges["in_flight"] == 0
        assert middleware._allowance.left_bytes == HELD_BODIES * HookSettings().max_body_bytes


async def test_a_request_is_in_flight_until_its_response_is_complete():
    released = asyncio.Event()

    async def streaming_app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await released.wait()

    _, middleware = made(streaming_app)
    requests = [
        asyncio.create_task(Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope())) for _ in range(3)
    ]
    await until(lambda: middleware._hook is not None and middleware._hook.counters.gauges["in_flight"] == 3)
    assert middleware._hook.counters.counts[Outcome.GATED] == 3, "the default gate is 4"
    requests += [
        asyncio.create_task(Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope())) for _ in range(2)
    ]
    await until(lambda: middleware._hook.counters.gauges["in_flight"] == 5)
    assert middleware._allowance.left_bytes == HELD_BODIES * HookSettings().max_body_bytes, "that is for bodies that come in"
    assert middleware._hook.counters.counts[Outcome.GATED] == 3, "the fourth and fifth would have been asked about"
    requests.pop().cancel()
    released.set()
    await asyncio.gather(*requests)
    await until(lambda: middleware._hook.counters.gauges["in_flight"] == 0)
    await middleware._hook.close()


async def test_a_body_that_trickles_in_is_not_in_flight():
    arrived = asyncio.Event()
    app, middleware = made()

    class Slow(Exchange):
        async def receive(self):
            await arrived.wait()
            return await super().receive()

    task = asyncio.create_task(Slow(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope()))
    await until(lambda: middleware._hook is not None)
    assert middleware._hook.counters.gauges["in_flight"] == 0
    arrived.set()
    await task
    assert app.priority == NEUTRAL
