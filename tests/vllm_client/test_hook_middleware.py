"""Which priority PriorityMiddleware gives a request, in which place, and what one of the client's own is worth."""

import sys
import types

import pytest
from asgi_rig import http_scope
from middleware_rig import LARGE, NEUTRAL, served


def pretend_vllm(monkeypatch, version):
    module = types.ModuleType("vllm")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "vllm", module)


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


async def test_a_traffic_class_delays(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('{"delays_ms": {"batch": 7000}}')
    for fields, more in (({"prompt": "a"}, {}), ({"prompt": "x" * LARGE}, {"max_body_bytes": 1_024})):
        app = await served(fields, headers=[("x-pars-class", "batch")], classes_file=str(path), **more)
        assert app.priority == str(int(NEUTRAL) + 7_000)
    assert (await served({"prompt": "a"}, headers=[("x-pars-class", "other")], classes_file=str(path))).priority == NEUTRAL
