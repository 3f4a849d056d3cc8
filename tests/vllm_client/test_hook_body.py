"""Bodies: held within a bound and handed on unchanged; a priority written into them and nothing else."""

import asyncio
import json

import pytest
from asgi_rig import DISCONNECT, Exchange, body_messages, cut
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_client.hook.body import Allowance, HeldBody, Insertion, Reading, priority_at_end, priority_at_start

PLENTY = 1 << 30

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text() | st.just("priority"), VALUES, max_size=4)
INT64 = st.integers(-(2**63), 2**63 - 1)
SPACE = st.text(" \t\n\r", max_size=3)


def spelled(value, indent, ascii_only):
    return json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


BODIES = st.builds(
    lambda before, value, indent, ascii_only, after: before.encode() + spelled(value, indent, ascii_only) + after.encode(),
    SPACE,
    OBJECTS,
    st.none() | st.integers(0, 2),
    st.booleans(),
    SPACE,
)


def comparable(value):
    """Equal for equal JSON, NaN included, and unequal for 1, 1.0 and True."""
    return json.dumps(value, sort_keys=True)


def written(body, insertion):
    return body[: insertion.offset] + insertion.text + body[insertion.offset :]


async def read(messages, max_bytes=PLENTY, allowance=None):
    server = Exchange(messages)
    body = HeldBody(server.receive, allowance or Allowance(PLENTY))
    return server, body, await body.read(max_bytes)


async def replayed(body, count):
    return [await body.replay() for _ in range(count)]


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=5), st.integers(0, 50))
@settings(deadline=None)
def test_what_is_read_is_handed_on_the_same(body, places, max_bytes):
    messages = body_messages(*cut(body, places))

    async def scenario():
        _, held, reading = await read(messages, max_bytes)
        assert reading is (Reading.COMPLETE if len(body) <= max_bytes else Reading.TOO_LARGE)
        if reading is Reading.COMPLETE:
            assert held.joined() == body
        else:
            assert body.startswith(held.joined())
            assert len(held.joined()) <= max_bytes + max(map(len, cut(body, places))), "it stopped at the bound"
        handed_on = await replayed(held, len(messages) + 2)
        assert handed_on == [*messages, DISCONNECT, DISCONNECT]
        assert all(one is other for one, other in zip(handed_on, messages, strict=False))

    asyncio.run(scenario())


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=5), st.integers(0, 5))
@settings(deadline=None)
def test_a_client_that_leaves_while_sending(pieces, sent):
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces[:sent]]

    async def scenario():
        server, held, reading = await read([*messages, DISCONNECT])
        assert reading is Reading.GONE
        assert server.taken == len(messages) + 1
        assert await replayed(held, len(messages) + 2) == [*messages, DISCONNECT, DISCONNECT]

    asyncio.run(scenario())


async def test_a_message_may_lack_what_the_protocol_makes_optional():
    _, held, reading = await read([{"type": "http.request"}])
    assert reading is Reading.COMPLETE
    assert held.joined() == b""
    assert await held.replay() == {"type": "http.request"}


async def test_an_error_of_the_server_reaches_the_application_in_its_place():
    failure = OSError("the socket is gone")
    first = body_messages(b"a", b"b")[0]

    class Failing(Exchange):
        async def receive(self):
            if not self.messages:
                raise failure
            return await super().receive()

    held = HeldBody(Failing([first]).receive, Allowance(PLENTY))
    assert await held.read(PLENTY) is Reading.GONE
    assert await held.replay() is first
    for _ in range(2):
        with pytest.raises(OSError, match="the socket is gone") as caught:
            await held.replay()
        assert caught.value is failure


async def test_all_bodies_together_hold_no_more_than_the_allowance():
    allowance = Allowance(10)
    _, first, reading = await read(body_messages(b"123456"), allowance=allowance)
    assert reading is Reading.COMPLETE
    _, second, reading = await read(body_messages(b"12345", b"6", b"7"), allowance=allowance)
    assert reading is Reading.TOO_LARGE
    second.release()
    second.release()
    _, third, reading = await read(body_messages(b"1234"), allowance=allowance)
    assert reading is Reading.COMPLETE
    first.release()
    third.release()
    assert allowance.left_bytes == 10


@given(BODIES, INT64)
@settings(deadline=None)
def test_at_the_end_one_field_is_added_or_replaced_and_no_other_byte_changes(body, priority):
    insertion = priority_at_end(body, priority)
    after = written(body, insertion)
    assert comparable(json.loads(after)) == comparable(json.loads(body) | {"priority": priority})
    assert after.replace(insertion.text, b"", 1) == body or insertion.text in body


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (b"{}", b'{"priority":7}'),
        (b" { \n} \r\n", b' { \n"priority":7} \r\n'),
        (b'{"a": {"b": {}}}', b'{"a": {"b": {}},"priority":7}'),
        (b'{"a": "}"}\n', b'{"a": "}","priority":7}\n'),
        (b'{"priority": 1, "a": 2}', b'{"priority": 1, "a": 2,"priority":7}'),
        (b'\xef\xbb\xbf{"a": 1}', b'\xef\xbb\xbf{"a": 1,"priority":7}'),
        ('{"a": "日本"}'.encode(), '{"a": "日本","priority":7}'.encode()),
        (b'{"a": "\xed\xa0\x80"}', b'{"a": "\xed\xa0\x80","priority":7}'),
    ],
)
def test_at_the_end_byte_by_byte(body, after):
    assert written(body, priority_at_end(body, 7)) == after
    assert json.loads(after)["priority"] == 7


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_left_alone(encoding):
    body = '{"prompt": "hi"}'.encode(encoding)
    assert json.loads(body) == {"prompt": "hi"}
    assert priority_at_end(body, 7) is None
    assert priority_at_start(body, 7) is None


@given(BODIES, INT64, st.integers(0, 30))
@settings(deadline=None)
def test_at_the_start_one_field_is_added_unless_the_object_has_it(body, priority, seen):
    insertion = priority_at_start(body[:seen], priority)
    if insertion is not None:
        after = written(body, insertion)
        assert comparable(json.loads(after)) == comparable({"priority": priority} | json.loads(body))


@pytest.mark.parametrize(
    ("beginning", "after"),
    [
        (b'{"a', b'{"priority":7,"a'),
        (b'\xef\xbb\xbf \n{ \t"', b'\xef\xbb\xbf \n{"priority":7, \t"'),
        (b"{", None),
        (b"{ ", None),
        (b"{}", None),
        (b"", None),
        (b"[1,", None),
        (b'"text', None),
        (b"{1", None),
        (b'\xef\xbb{"a', None),
    ],
)
def test_at_the_start_byte_by_byte(beginning, after):
    insertion = priority_at_start(beginning, 7)
    assert (insertion and written(beginning, insertion)) == after


@given(st.binary(min_size=1, max_size=20), st.lists(st.integers(0, 20), max_size=4), st.integers(1, 20), st.binary(min_size=1))
@settings(deadline=None)
def test_an_insertion_keeps_the_cuts_and_the_servers_messages(body, places, offset, text):
    offset = min(offset, len(body))
    messages = body_messages(*cut(body, places))
    before = [dict(message) for message in messages]

    async def scenario():
        _, held, _ = await read(messages)
        held.insert(Insertion(offset, text))
        handed_on = await replayed(held, len(messages))
        assert b"".join(message["body"] for message in handed_on) == body[:offset] + text + body[offset:]
        changed = [one for one, other in zip(handed_on, before, strict=True) if one != other]
        assert len(changed) == 1, "one message is longer, the others are as they were"
        assert [message["more_body"] for message in handed_on] == [message["more_body"] for message in before]

    asyncio.run(scenario())
    assert messages == before
