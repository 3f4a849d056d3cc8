"""Bugs of ours and of others: they cost a request its priority and nothing else, and no log quotes it."""

import logging

import pytest
from asgi_rig import DISCONNECT, Exchange, LivingApp, body_messages, http_scope, live
from middleware_rig import made, served

from vllm_client import PriorityHook
from vllm_client.hook.decision import Outcome


class BrokenHook(PriorityHook):
    async def decide(self, asked, arrival_ms, backlog_ms=0.0):
        raise RuntimeError(f"quoting {asked.texts}")


class BrokenNeutral(BrokenHook):
    def neutral(self, asked, arrival_ms, outcome):
        raise RuntimeError("that too")


class BrokenStart(PriorityHook):
    def start(self):
        raise RuntimeError("no loop")

    async def close(self):
        raise RuntimeError("no loop")


@pytest.mark.parametrize("make_hook", [BrokenHook, BrokenNeutral])
async def test_a_bug_costs_a_request_its_priority_and_nothing_else(make_hook, errors):
    app, middleware = made(make_hook=make_hook)
    messages = body_messages(b'{"prompt":', b'"my secret"}')
    for number in range(1, 4):
        scope, server = http_scope(), Exchange(messages)
        await server.run(middleware, scope)
        assert app.scopes.pop() is scope
        assert app.messages == [*messages, DISCONNECT]
        app.messages.clear()
        assert len(server.sent) == 3
        assert middleware._hook.counters.counts[Outcome.HOOK_FAULT] == (number if make_hook is BrokenHook else 0)
    (line,) = [line for line in errors() if "RuntimeError" in line]
    assert "decide" in line, "the frames are there"
    assert "secret" not in line, "the text is not"


async def test_a_server_that_breaks_the_protocol_reaches_the_application():
    _, middleware = made()
    server = Exchange([{"body": b"{"}])

    async def odd_app(scope, receive, send):
        assert await receive() == {"body": b"{"}
        await send("answer")

    middleware.app = odd_app
    await server.run(middleware, http_scope())
    assert server.sent == ["answer"]


async def test_a_hook_that_cannot_be_made_or_started_or_closed_leaves_the_server_alone():
    def unmakeable(*arguments, **more):
        raise RuntimeError("no")

    for make_hook in (unmakeable, BrokenStart):
        app, middleware = made(LivingApp(), make_hook=make_hook)
        async with live(middleware):
            await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope())
        assert app.messages[0]["body"] == b'{"prompt": "a"}'
        assert app.life == ["lifespan.startup", "lifespan.shutdown"]


async def test_nothing_of_a_request_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    for body in (
        b'{"prompt": "my secret"}',
        b'{"prompt": "my secret',
        b'{"prompt": ["my secret", 3]}',
        b'{"prompt": "my secret \\ud800"}',
    ):
        await served(body, headers=[("authorization", "Bearer my secret"), ("x-vllm-priority", "my secret")])
    assert "secret" not in caplog.text
