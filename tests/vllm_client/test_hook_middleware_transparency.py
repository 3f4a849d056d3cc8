"""The same with PriorityMiddleware as without it, but for one header or one field: any exchange, run both ways and compared."""

import asyncio
import contextlib
import gzip
import json

import pytest
from asgi_rig import DISCONNECT, Exchange, RecordingApp, body_messages, cut, http_scope
from hypothesis import given, settings
from hypothesis import strategies as st
from middleware_rig import LARGE, StillHook, made

from vllm_client import HookSettings, PriorityMiddleware
from vllm_client.hook.middleware import HELD_BODIES
from vllm_client.hook.request import ENDPOINTS

TEXTS = st.text(max_size=30)
PROMPTS = TEXTS | st.lists(TEXTS, max_size=3) | st.lists(st.integers(0, 99), max_size=5) | st.none() | st.integers()
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": TEXTS | st.none()}), max_size=3
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "prompt": PROMPTS,
        "messages": MESSAGES | TEXTS,
        "input": TEXTS | MESSAGES,
        "priority": st.none() | st.integers() | st.floats() | TEXTS,
        "stream": st.booleans(),
        "n": st.integers(-1, 5),
        "padding": st.sampled_from(["", "x" * LARGE]),
    },
)
SPELLINGS = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
WHOLE = st.builds(
    lambda fields, spelling, indent: json.dumps(fields, indent=indent).encode(spelling),
    FIELDS,
    SPELLINGS,
    st.none() | st.just(1),
)
BODIES = st.one_of(
    WHOLE,
    WHOLE,
    WHOLE.map(gzip.compress),
    st.binary(max_size=50),
    st.builds(lambda body, end: body[:end], WHOLE, st.integers(0, 60)),
    st.sampled_from([b"", b"{}", b"[]", b"null", b"[" * 5_000, b"{" * LARGE, b" " * LARGE + b"{}"]),
)
HEADERS = st.lists(
    st.sampled_from(
        [
            ("content-type", "application/json"),
            ("content-type", "text/plain"),
            ("content-encoding", "gzip"),
            ("x-vllm-priority", "5"),
            ("x-vllm-priority", "nonsense"),
            ("x-vllm-priority", "9" * 30),
            ("authorization", "Bearer key"),
            ("x-pars-class", "batch"),
        ]
    ),
    max_size=5,
)
PATHS = st.sampled_from([*(endpoint.suffix for endpoint in ENDPOINTS), "/v1/models"])
READS_ONLY_THE_FIELD = {endpoint.suffix for endpoint in ENDPOINTS if not endpoint.reads_header}
READS_ONLY_THE_HEADER = {endpoint.suffix for endpoint in ENDPOINTS if not endpoint.reads_body}
OPTIONS = st.fixed_dictionaries(
    {
        "client_priority": st.sampled_from(["keep", "combine", "override"]),
        "shadow": st.sampled_from([False, False, True]),
        "policy": st.sampled_from(["ageing", "cost"]),
        "max_body_bytes": st.sampled_from([1_024, 1_048_576]),
    }
)


@st.composite
def exchanges(draw):
    """Messages of a server: a body in any pieces, complete, or cut off by a disconnect after any of them."""
    body = draw(BODIES)
    messages = body_messages(*cut(body, draw(st.lists(st.integers(0, 80), max_size=4))))
    if draw(st.booleans()):
        messages = [*messages[: draw(st.integers(0, len(messages) - 1))], DISCONNECT]
    headers = draw(HEADERS)
    if draw(st.booleans()):
        headers = [*headers, ("content-length", str(len(body)))]
    return messages, headers


def without_priority(scope):
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"x-vllm-priority"]}


def compared(messages, headers, path, options):
    """Run an exchange with and without the middleware; assert what must hold everywhere; return both applications."""

    async def scenario():
        bare, inside = RecordingApp(), RecordingApp()
        middleware = PriorityMiddleware(inside, HookSettings(**options), make_hook=StillHook)
        # The bare one gets copies: whoever changed a message in place would change both otherwise.
        expected = await Exchange([dict(message) for message in messages]).run(bare, http_scope(path, headers))
        server = Exchange(messages)
        await server.run(middleware, http_scope(path, headers))
        assert server.sent == expected.sent
        assert inside.sends == [server.send], "responses are not wrapped"
        if inside.messages == bare.messages:
            passed_on = inside.messages[: len(messages)]
            assert [id(message) for message in passed_on] == [id(message) for message in messages], "messages are not copied"
        assert middleware._allowance.left_bytes == HELD_BODIES * options["max_body_bytes"]
        return bare, inside

    return asyncio.run(scenario())


def assert_header_alone(bare, inside, options):
    """The body is the same, and the scope but for the priority header."""
    assert inside.messages == bare.messages
    (before,), (after,) = bare.scopes, inside.scopes
    assert without_priority(after) == without_priority(before)
    if options["shadow"]:
        assert after == before


def assert_field_alone(bare, inside, options):
    """One member is added to the body, and the declared length fits."""
    assert len(inside.messages) == len(bare.messages)
    added = len(inside.body) - len(bare.body)
    (before,), (after,) = bare.scopes, inside.scopes
    if not added:
        assert inside.messages == bare.messages
        assert after == before
        return
    assert not options["shadow"]
    assert [message.get("more_body") for message in inside.messages] == [message.get("more_body") for message in bare.messages]
    assert without_priority({**after, "headers": []}) == without_priority({**before, "headers": []})
    lengths = [[int(value) for name, value in scope["headers"] if name == b"content-length"] for scope in (before, after)]
    assert lengths[1] == [length + added for length in lengths[0]]
    if any(message.get("more_body") is False for message in bare.messages):
        with contextlib.suppress(ValueError):  # A body that was too large to be looked into, and is no JSON.
            fields, own = inside.fields, json.loads(bare.body)
            assert json.dumps(fields, sort_keys=True) in (
                json.dumps(own | {"priority": fields["priority"]}, sort_keys=True),
                json.dumps({"priority": fields["priority"]} | own, sort_keys=True),
            )
            assert isinstance(fields["priority"], int) or "priority" in own


@given(exchanges(), PATHS, OPTIONS)
@settings(max_examples=300, deadline=None)
def test_with_the_header_nothing_but_that_header_changes(exchange, path, options):
    messages, headers = exchange
    bare, inside = compared(messages, headers, path, options | {"priority_place": "header"})
    (assert_field_alone if path in READS_ONLY_THE_FIELD else assert_header_alone)(bare, inside, options)


@given(exchanges(), PATHS, OPTIONS)
@settings(max_examples=300, deadline=None)
def test_with_the_field_nothing_but_that_field_changes(exchange, path, options):
    messages, headers = exchange
    bare, inside = compared(messages, headers, path, options | {"priority_place": "body"})
    (assert_header_alone if path in READS_ONLY_THE_HEADER else assert_field_alone)(bare, inside, options)


@given(st.binary(max_size=10), st.sampled_from(["GET", "PUT", "DELETE", "OPTIONS", "HEAD"]), PATHS)
@settings(max_examples=30, deadline=None)
def test_other_methods_are_not_looked_at(body, method, path):
    async def scenario():
        app, middleware = made()
        scope, server = http_scope(path, method=method), Exchange(body_messages(body))
        await server.run(middleware, scope)
        assert app.scopes[0] is scope
        assert scope["headers"] == http_scope()["headers"]

    asyncio.run(scenario())


async def test_other_protocols_are_not_looked_at():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    middleware = PriorityMiddleware(app, HookSettings())
    for kind in ("websocket", "unheard of"):
        call = ({"type": kind, "path": "/v1/completions"}, object(), object())
        await middleware(*call)
        assert seen.pop() == call


async def test_exceptions_of_the_application_come_through_as_they_are():
    for failure in (ValueError("x"), StopAsyncIteration(), asyncio.CancelledError(), KeyboardInterrupt()):
        _, middleware = made(RecordingApp(error=failure))
        with pytest.raises(type(failure)) as caught:
            await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope())
        assert caught.value is failure
        assert middleware._hook.counters.gauges["in_flight"] == 0
