"""Bodies that PriorityMiddleware cannot read or score: too large, compressed, broken, cut off, without text."""

import gzip
import json

import pytest
from asgi_rig import DISCONNECT, Exchange, body_messages, http_scope
from middleware_rig import LARGE, NEUTRAL, made, served


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
