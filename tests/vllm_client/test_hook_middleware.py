"""PriorityMiddleware between a server and an application that are played by hand, with the real hook inside."""

import asyncio
import contextlib
import functools
import gzip
import json
import logging
import sys
import types
from types import SimpleNamespace

import pytest
from asgi_rig import DISCONNECT, TIMEOUT_S, Exchange, RecordingApp, body_messages, cut, http_scope
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_client import HookSettings, PriorityHook, PriorityMiddleware
from vllm_client.hook.decision import Outcome
from vllm_client.hook.middleware import HELD_BODIES
from vllm_client.hook.request import ENDPOINTS
from vllm_client.hook.settings import HookSettingsError

NOW_MS = 1_000_000
NEUTRAL = str(NOW_MS + 20_000)
"""Half a window after now: what the default policy gives a request that nobody scored."""

LARGE = 2_000
"""More than max_body_bytes, where a test sets that to 1,024."""

StillHook = functools.partial(PriorityHook, wall_ms=lambda: NOW_MS)
"""The real hook at a standing clock. Alone on its host it is gated, so it never asks."""


@pytest.fixture(autouse=True)
def no_vllm(monkeypatch):
    monkeypatch.delitem(sys.modules, "vllm", raising=False)


@pytest.fixture
def errors(caplog):
    """Lines of the log at WARNING or above, so far."""
    caplog.set_level(logging.INFO, logger="vllm_client")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def pretend_vllm(monkeypatch, version):
    module = types.ModuleType("vllm")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "vllm", module)


def vllm_app_state(policy, max_num_seqs=16):
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(policy=policy, max_num_seqs=max_num_seqs),
        parallel_config=SimpleNamespace(_api_process_count=1),
    )
    return SimpleNamespace(state=SimpleNamespace(vllm_config=config))


def made(app=None, make_hook=StillHook, **more):
    app = app or RecordingApp()
    return app, PriorityMiddleware(app, HookSettings(**more), make_hook=make_hook)


async def served(fields, *, path="/v1/completions", headers=(), scope=None, app=None, **more):
    """Send one request through a middleware of its own and return the application, which recorded it."""
    app, middleware = made(app, **more)
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    scope = scope or http_scope(path, (("content-type", "application/json"), *headers))
    await Exchange(body_messages(body)).run(middleware, scope)
    app.counts = {str(outcome): count for outcome, count in middleware._hook.counters.counts.items() if count}
    return app


# --- The same as without it -----------------------------------------------------------------------------------------------------

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


# --- Priorities -----------------------------------------------------------------------------------------------------------------


async def test_an_unscored_request_gets_the_neutral_priority_in_the_header():
    app = await served({"prompt": "hello"})
    assert app.priority == NEUTRAL
    assert app.fields == {"prompt": "hello"}
    assert app.counts == {"gated": 1}


async def test_the_servers_scope_is_not_changed():
    scope = http_scope(headers=[("content-type", "application/json"), ("x-vllm-priority", "7")])
    before = [*scope["headers"]]
    app = await served({"prompt": "hello"}, scope=scope, client_priority="override")
    assert app.priority == NEUTRAL
    assert scope["headers"] == before
    assert app.scopes[0]["state"] is scope["state"], "what the application leaves there is seen outside"


@pytest.mark.parametrize("path", ["/v1/chat/completions/batch"])
async def test_an_endpoint_that_reads_no_header_gets_the_field(path):
    app = await served({"messages": [[{"role": "user", "content": "hello"}]]}, path=path)
    assert app.priority is None
    assert app.fields["priority"] == int(NEUTRAL)


async def test_a_vllm_that_knows_no_header_gets_the_field(monkeypatch):
    pretend_vllm(monkeypatch, "0.27.1")
    app = await served({"prompt": "hello"}, headers=[("content-length", "19")])
    assert app.priority is None
    assert app.fields == {"prompt": "hello", "priority": int(NEUTRAL)}
    assert dict(app.headers)[b"content-length"] == str(len(app.body)).encode()


async def test_whoever_insists_on_the_header_gets_it(monkeypatch):
    pretend_vllm(monkeypatch, "0.27.1")
    app = await served({"prompt": "hello"}, priority_place="header")
    assert (app.priority, app.fields) == (NEUTRAL, {"prompt": "hello"})


@pytest.mark.parametrize(
    ("place", "path", "messages"),
    [
        ("body", "/v1/messages", [{"role": "user", "content": "hello"}]),
        ("header", "/v1/chat/completions/batch", [[{"role": "user", "content": "hello"}]]),
    ],
)
async def test_an_endpoint_without_the_wanted_place_gets_the_other(place, path, messages):
    """Without a priority it would count as 0, and jump the queue."""
    app = await served({"messages": messages}, path=path, priority_place=place)
    assert (app.priority, app.fields.get("priority")) == ((NEUTRAL, None) if place == "body" else (None, int(NEUTRAL)))
    assert app.counts == {"gated": 1}


async def test_a_clients_header_counts_only_where_the_server_reads_it(monkeypatch):
    conversations = {"messages": [[{"role": "user", "content": "hello"}]]}
    app = await served(conversations, path="/v1/chat/completions/batch", headers=[("x-vllm-priority", "5")])
    assert (app.fields["priority"], app.counts) == (int(NEUTRAL), {"gated": 1})
    pretend_vllm(monkeypatch, "0.27.1")
    app = await served({"prompt": "hello"}, headers=[("x-vllm-priority", "5")])
    assert (app.fields["priority"], app.counts) == (int(NEUTRAL), {"gated": 1})


async def test_a_vllm_that_has_no_priority_for_anthropic_gets_none(monkeypatch):
    pretend_vllm(monkeypatch, "0.27.1")
    fields = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, "model": "m"}
    app = await served(fields, path="/v1/messages", headers=[("x-vllm-priority", "7")])
    assert app.fields == fields
    assert app.priority == "7"
    assert app.counts == {"no_place": 1}


@pytest.mark.parametrize(
    ("place", "client", "header", "field", "count"),
    [
        pytest.param("header", "keep", "5", None, "client_priority", id="kept in the header"),
        pytest.param("header", "override", NEUTRAL, None, "gated", id="overridden in the header"),
        pytest.param("header", "combine", str(int(NEUTRAL) + 5_000), None, "gated", id="combined in the header"),
        pytest.param("body", "keep", "5", None, "client_priority", id="kept, place is the body"),
        pytest.param("body", "override", None, int(NEUTRAL), "gated", id="the header would win over the field, so it goes"),
        pytest.param("body", "combine", None, int(NEUTRAL) + 5_000, "gated", id="combined in the body"),
    ],
)
async def test_a_priority_in_the_clients_header(place, client, header, field, count):
    app = await served({"prompt": "a"}, headers=[("x-vllm-priority", "5")], priority_place=place, client_priority=client)
    assert (app.priority, app.fields.get("priority")) == (header, field)
    assert app.counts == {count: 1}


@pytest.mark.parametrize(
    ("place", "client", "header", "field"),
    [
        pytest.param("header", "keep", None, 5, id="kept"),
        pytest.param("header", "override", NEUTRAL, 5, id="the header wins over the field"),
        pytest.param("header", "combine", str(int(NEUTRAL) + 5_000), 5, id="combined in the header"),
        pytest.param("body", "override", None, int(NEUTRAL), id="the last of two fields counts"),
        pytest.param("body", "combine", None, int(NEUTRAL) + 5_000, id="combined in the body"),
    ],
)
async def test_a_priority_in_the_clients_body(place, client, header, field):
    app = await served({"priority": 5, "prompt": "a"}, priority_place=place, client_priority=client)
    assert (app.priority, app.fields["priority"]) == (header, field)


@pytest.mark.parametrize("value", ["nonsense", "5.0", "", "9" * 5_000])
async def test_a_header_that_vllm_passes_over_is_no_priority(value):
    assert (await served({"prompt": "a"}, headers=[("x-vllm-priority", value)])).priority == NEUTRAL


@pytest.mark.parametrize("value", [" 5 ", "1_0", "-3", "9" * 30])
async def test_a_header_that_vllm_reads_is_kept_whatever_it_makes_of_it(value):
    assert (await served({"prompt": "a"}, headers=[("x-vllm-priority", value)])).priority == value


async def test_a_body_field_that_vllm_refuses_is_left_to_it():
    app = await served({"prompt": "a", "priority": "x"}, client_priority="override")
    assert app.priority is None
    assert app.counts == {"unreadable": 1}


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_too_large_to_be_read_counts_as_middling(declared):
    fields = {"prompt": "x" * LARGE}
    headers = [("content-length", str(len(json.dumps(fields))))] if declared else []
    app = await served(fields, headers=headers, max_body_bytes=1_024)
    assert app.priority == NEUTRAL
    assert app.fields == fields
    assert app.counts == {"too_large": 1}


async def test_a_body_too_large_to_be_read_gets_its_field_at_the_front():
    app = await served({"prompt": "x" * LARGE}, max_body_bytes=1_024, priority_place="body")
    assert app.body.startswith(b'{"priority":%s,"prompt"' % NEUTRAL.encode())
    app = await served({"prompt": "x" * LARGE, "priority": 5}, max_body_bytes=1_024, priority_place="body")
    assert app.fields["priority"] == 5, "the client's own is kept"


async def test_no_more_of_a_large_body_is_read_than_the_bound():
    taken = []
    _, middleware = made(max_body_bytes=1_024)
    server = Exchange(body_messages(*[b"x" * 500] * 10))

    async def wary_app(scope, receive, send):
        taken.append(server.taken)

    middleware.app = wary_app
    await server.run(middleware, http_scope())
    assert taken == [3]


async def test_compressed_bodies_count_as_middling_and_are_not_read():
    packed = gzip.compress(b'{"prompt": "a"}')
    app = await served(packed, headers=[("content-encoding", "gzip")])
    assert (app.priority, app.body, app.counts) == (NEUTRAL, packed, {"unreadable": 1})
    app = await served(packed, headers=[("content-encoding", "gzip")], priority_place="body")
    assert (app.priority, app.body, app.counts) == (None, packed, {"unreadable": 1})


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"prompt": 3}', b"\xff"])
async def test_what_the_server_will_refuse_it_refuses_as_ever(body):
    app = await served(body)
    assert (app.priority, app.body, app.counts) == (None, body, {"unreadable": 1})


async def test_another_media_type_is_the_servers_to_refuse():
    app = await served(b'{"prompt": "a"}', scope=http_scope(headers=[("content-type", "text/plain")]))
    assert (app.priority, app.counts) == (None, {"unreadable": 1})


async def test_a_client_that_left_is_neither_asked_about_nor_counted():
    app, middleware = made()
    messages = [{"type": "http.request", "body": b'{"prompt": "a"}', "more_body": True}]
    await Exchange(messages).run(middleware, http_scope())
    assert app.messages == [*messages, DISCONNECT]
    assert app.priority is None
    assert not any(middleware._hook.counters.counts.values())


async def test_token_ids_cannot_be_scored():
    assert (await served({"prompt": [1, 2, 3]})).counts == {"no_text": 1}


async def test_a_traffic_class_delays(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('{"delays_ms": {"batch": 7000}}')
    for fields, more in (({"prompt": "a"}, {}), ({"prompt": "x" * LARGE}, {"max_body_bytes": 1_024})):
        app = await served(fields, headers=[("x-pars-class", "batch")], classes_file=str(path), **more)
        assert app.priority == str(int(NEUTRAL) + 7_000)
    assert (await served({"prompt": "a"}, headers=[("x-pars-class", "other")], classes_file=str(path))).priority == NEUTRAL


# --- With a sidecar -------------------------------------------------------------------------------------------------------------


async def until(condition):
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for belongs to the middleware, which has no event for tests
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def live(middleware):
    """Run the lifespan around a block, as a server does."""
    inbox, outbox = asyncio.Queue(), asyncio.Queue()
    task = asyncio.create_task(middleware({"type": "lifespan", "state": {}}, inbox.get, outbox.put))
    async with asyncio.timeout(TIMEOUT_S):
        await inbox.put({"type": "lifespan.startup"})
        assert await outbox.get() == {"type": "lifespan.startup.complete"}
        yield
        await inbox.put({"type": "lifespan.shutdown"})
        assert await outbox.get() == {"type": "lifespan.shutdown.complete"}
        await task


class LivingApp(RecordingApp):
    """Has a lifespan too, and writes down what it sees of it."""

    def __init__(self):
        super().__init__()
        self.life = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)
            return
        for state in ("startup", "shutdown"):
            message = await receive()
            self.life.append(message["type"])
            assert message == {"type": f"lifespan.{state}"}
            await send({"type": f"lifespan.{state}.complete"})


async def test_a_scored_request(ranker):
    ranker.answer_stream = ranker.serve_items
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
    ranker.answer_stream = ranker.serve_items
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
    ranker.answer_stream = ranker.serve_items
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


# --- The load gate --------------------------------------------------------------------------------------------------------------


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


# --- The host -------------------------------------------------------------------------------------------------------------------


async def test_an_engine_that_runs_fcfs_is_told_of_once_and_its_requests_are_untouched(errors):
    app, middleware = made()
    for _ in range(3):
        scope = http_scope(app=vllm_app_state("fcfs"))
        await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, scope)
        assert app.scopes.pop() is scope
    (line,) = [line for line in errors() if "--scheduling-policy priority" in line]
    assert "DOES NOTHING" in line
    assert middleware._hook.counters.counts[Outcome.FCFS_ENGINE] == 3


async def test_nobody_connects_for_an_engine_that_runs_fcfs():
    starts = []

    class Watched(PriorityHook):
        def start(self):
            starts.append(self)

    for policy, more, started in (("fcfs", {}, 0), ("fcfs", {"shadow": True}, 1), ("priority", {}, 1)):
        _, middleware = made(make_hook=Watched, **more)
        for _ in range(2):
            await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope(app=vllm_app_state(policy)))
        assert len(starts) == started
        starts.clear()


async def test_shadow_mode_goes_on_under_fcfs(errors):
    app, middleware = made(shadow=True)
    await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope(app=vllm_app_state("fcfs")))
    assert app.priority is None
    assert middleware._hook.counters.counts[Outcome.GATED] == 1
    assert any("Shadow mode" in line for line in errors())


async def test_the_gate_follows_the_engine():
    _, middleware = made()
    await Exchange(body_messages(b'{"prompt": "a"}')).run(
        middleware, http_scope(app=vllm_app_state("priority", max_num_seqs=256))
    )
    assert middleware._hook.gate_in_flight == 64


# --- Settings -------------------------------------------------------------------------------------------------------------------


async def lifespan_answers(middleware):
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    await middleware({"type": "lifespan", "state": {}}, receive, send)
    return sent


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PARS_HOOK_WINDOW_MS", "soon", "PARS_HOOK_WINDOW_MS is 'soon'"),
        ("PARS_HOOK_WINDOWMS", "1", "PARS_HOOK_WINDOWMS is not a setting"),
        ("PARS_HOOK_CLASSES_FILE", "/nowhere/classes.json", "/nowhere/classes.json"),
    ],
)
async def test_a_wrong_variable_stops_the_servers_start_and_says_why(monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    app = LivingApp()
    ((answer),) = await lifespan_answers(PriorityMiddleware(app))
    assert answer["type"] == "lifespan.startup.failed"
    assert words in answer["message"]
    assert app.life == []


async def test_a_wrong_variable_on_a_host_without_lifespan_is_told_of_once_and_harms_nobody(monkeypatch, errors):
    monkeypatch.setenv("PARS_HOOK_WINDOW_MS", "soon")
    app = RecordingApp()
    middleware = PriorityMiddleware(app)
    for _ in range(2):
        scope = http_scope()
        await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, scope)
        assert app.scopes.pop() is scope
    (line,) = errors()
    assert "PARS_HOOK_WINDOW_MS is 'soon'" in line


async def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PARS_HOOK_POLICY", "equal")
    app = RecordingApp()
    middleware = PriorityMiddleware(app)
    await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope())
    assert app.priority == "0"
    await middleware._hook.close()


def test_wrong_settings_of_the_callers_own_are_raised(tmp_path):
    with pytest.raises(HookSettingsError, match=r"missing\.json"):
        PriorityMiddleware(RecordingApp(), HookSettings(classes_file=str(tmp_path / "missing.json")))


async def test_an_application_that_knows_no_lifespan_stays_as_it_is():
    class Unwilling(RecordingApp):
        async def __call__(self, scope, receive, send):
            assert scope["type"] == "http", "unsupported"
            await super().__call__(scope, receive, send)

    app, middleware = made(Unwilling())
    with pytest.raises(AssertionError, match="unsupported"):
        await lifespan_answers(middleware)
    await Exchange(body_messages(b'{"prompt": "a"}')).run(middleware, http_scope())
    assert app.priority == NEUTRAL


async def test_a_failed_start_of_the_application_is_passed_on():
    async def failing(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model"})

    _, middleware = made(failing)
    assert await lifespan_answers(middleware) == [{"type": "lifespan.startup.failed", "message": "no model"}]


# --- Bugs of ours ---------------------------------------------------------------------------------------------------------------


class BrokenHook(PriorityHook):
    async def decide(self, asked, arrival_ms):
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
