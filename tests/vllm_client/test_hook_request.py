"""What each endpoint's body asks for. The shapes are those of vLLM 0.32.0."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pars.text import MAX_CHARS
from vllm_client.hook.asked import Asked
from vllm_client.hook.request import ENDPOINTS, endpoint_of, read_request
from vllm_client.hook.values import MAX_COUNT, MAX_NODES

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, BATCH, INVOCATIONS = "/v1/messages", "/v1/chat/completions/batch", "/invocations"

NAMES = st.sampled_from(
    [
        *("messages", "prompt", "input", "priority", "n", "max_tokens", "max_completion_tokens", "max_output_tokens", "role"),
        *("content", "type", "text", "system", "tools", "instructions", "suffix", "user", "documents", "image_url"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["user", "text", "input_text"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(NAMES | st.text(), children, max_size=5),
    max_leaves=25,
)


def asked(path, fields, max_prompts=4, **more):
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return read_request(endpoint_of(path), body, max_prompts=max_prompts, **more)


def user(content):
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("path", "suffix"),
    [
        (CHAT, CHAT),
        (COMPLETIONS, COMPLETIONS),
        (BATCH, BATCH),
        (RESPONSES, RESPONSES),
        (MESSAGES, MESSAGES),
        (INVOCATIONS, INVOCATIONS),
        ("/gpu7/v1/chat/completions", CHAT),
        ("/a/b/invocations", INVOCATIONS),
        ("/v1/chat/completions/", None),
        ("/v1/chat/completions/render", None),
        ("/v1/messages/count_tokens", None),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1/embeddings", None),
        ("/v1/audio/transcriptions", None),
        ("/metrics", None),
        ("/completions", None),
        ("", None),
    ],
)
def test_which_paths_are_looked_at(path, suffix):
    endpoint = endpoint_of(path)
    assert (endpoint and endpoint.suffix) == suffix


def test_every_endpoint_is_found_by_its_own_path():
    assert [endpoint_of(endpoint.suffix) for endpoint in ENDPOINTS] == [*ENDPOINTS]


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        pytest.param(
            COMPLETIONS, {"prompt": "four"}, Asked(texts=("four",), prompt_chars=4, max_tokens=16), id="16 tokens unless said"
        ),
        pytest.param(
            COMPLETIONS, {"prompt": "four", "max_tokens": None}, Asked(texts=("four",), prompt_chars=4), id="null is no limit"
        ),
        pytest.param(
            COMPLETIONS,
            {"prompt": "ab", "suffix": "cde", "max_tokens": 0, "n": 3},
            Asked(texts=("ab",), prompt_chars=5, max_tokens=0, samples=3),
            id="suffix, echo, samples",
        ),
        pytest.param(
            COMPLETIONS,
            {"prompt": ["a", "", "ccc"], "max_tokens": 9},
            Asked(texts=("a", "", "ccc"), prompt_chars=4, max_tokens=9),
            id="a list, one of them empty",
        ),
        pytest.param(
            COMPLETIONS,
            {"prompt": list("abcdefghij"), "max_tokens": 9, "n": 2},
            Asked(texts=("a", "b", "c", "d"), prompt_chars=10, max_tokens=9, samples=5),
            id="a long list: 20 responses over 4 texts",
        ),
        pytest.param(
            COMPLETIONS,
            {"prompt": list("abcde")},
            Asked(texts=("a", "b", "c", "d"), prompt_chars=5, max_tokens=16, samples=2),
            id="a list that does not divide: rounded up",
        ),
        pytest.param(COMPLETIONS, {"prompt": [1, 2, 3]}, Asked(prompt_chars=12, max_tokens=16), id="token ids"),
        pytest.param(
            COMPLETIONS, {"prompt": [[1], [2, 3]]}, Asked(prompt_chars=12, max_tokens=16, samples=2), id="lists of token ids"
        ),
        pytest.param(COMPLETIONS, {"prompt": []}, Asked(max_tokens=16), id="no prompts"),
        pytest.param(COMPLETIONS, {"prompt_embeds": "AAAA"}, Asked(max_tokens=16), id="embeddings"),
        pytest.param(
            CHAT,
            {"messages": [{"role": "system", "content": "abc"}, user("hello")]},
            Asked(texts=("hello",), prompt_chars=8),
            id="chat",
        ),
        pytest.param(
            CHAT,
            {"messages": [user("hi")], "max_tokens": 5, "max_completion_tokens": 7, "n": 2},
            Asked(texts=("hi",), prompt_chars=2, max_tokens=7, samples=2),
            id="the newer limit wins",
        ),
        pytest.param(
            CHAT,
            {"messages": [user("hi")], "max_tokens": 5, "max_completion_tokens": None},
            Asked(texts=("hi",), prompt_chars=2, max_tokens=5),
            id="the older limit",
        ),
        pytest.param(
            CHAT,
            {
                "messages": [
                    user([{"type": "image_url", "image_url": {"url": "data:" + 99 * "A"}}, {"type": "text", "text": "what?"}])
                ]
            },
            Asked(texts=("what?",), prompt_chars=5),
            id="pictures are not characters",
        ),
        pytest.param(
            CHAT,
            {"messages": [user("hi")], "tools": [{"type": "function", "function": {"name": "find", "parameters": {"x": "y"}}}]},
            Asked(texts=("hi",), prompt_chars=2 + len("typefunctionnamefindparametersxy")),
            id="tools are read by the model and not by the ranker",
        ),
        pytest.param(
            CHAT,
            {
                "messages": [
                    user("hi"),
                    {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
                ]
            },
            Asked(texts=("hi",), prompt_chars=2 + 1 + 2),
            id="so are the calls to them",
        ),
        pytest.param(CHAT, {"messages": []}, Asked(), id="an empty conversation"),
        pytest.param(CHAT, {"messages": [{"role": "system", "content": "abc"}]}, Asked(prompt_chars=3), id="nobody asks"),
        pytest.param(
            BATCH,
            {"messages": [[user("a")], [user([])], [user("ccc")]], "max_tokens": 3},
            Asked(texts=("a", "ccc"), prompt_chars=4, max_tokens=3, samples=2),
            id="several conversations, one without text",
        ),
        pytest.param(
            BATCH, {"messages": [[user("a")]] * 9}, Asked(texts=("a",) * 4, prompt_chars=9, samples=3), id="many conversations"
        ),
        pytest.param(
            RESPONSES,
            {"input": "hello", "instructions": "abc", "max_output_tokens": 11},
            Asked(texts=("hello",), prompt_chars=8, max_tokens=11),
            id="responses",
        ),
        pytest.param(
            RESPONSES,
            {
                "input": [
                    user([{"type": "input_text", "text": "hello"}]),
                    {"type": "function_call_output", "call_id": "c", "output": "42"},
                ]
            },
            Asked(texts=("hello",), prompt_chars=7),
            id="responses with items",
        ),
        pytest.param(
            MESSAGES,
            {
                "messages": [user([{"type": "text", "text": "hello"}])],
                "system": [{"type": "text", "text": "abc"}],
                "max_tokens": 12,
            },
            Asked(texts=("hello",), prompt_chars=8, max_tokens=12),
            id="Anthropic",
        ),
        pytest.param(
            INVOCATIONS, {"messages": [user("hi")], "prompt": "no"}, Asked(texts=("hi",), prompt_chars=2), id="SageMaker chat"
        ),
        pytest.param(
            INVOCATIONS, {"prompt": "hi"}, Asked(texts=("hi",), prompt_chars=2, max_tokens=16), id="SageMaker completion"
        ),
    ],
)
def test_what_a_body_asks_for(path, fields, expected):
    assert asked(path, fields) == expected


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        *((path, body) for path in (CHAT, COMPLETIONS, BATCH, RESPONSES, MESSAGES, INVOCATIONS) for body in (b"", b"{", b"[]", b"null")),
        *((path, {}) for path in (CHAT, BATCH, RESPONSES, MESSAGES)),
        (CHAT, {"messages": "hi"}),
        (CHAT, {"messages": ["hi"]}),
        (CHAT, {"messages": {"role": "user"}}),
        (BATCH, {"messages": [user("one conversation")]}),
        (COMPLETIONS, {"prompt": 3}),
        (COMPLETIONS, {"prompt": {"text": "x"}}),
        (COMPLETIONS, {"prompt": ["a", 3]}),
        (RESPONSES, {"input": None}),
        (COMPLETIONS, b'{"prompt": "\xff"}'),
        (COMPLETIONS, b'{"prompt": "a", "n": ' + 5_000 * b"9" + b"}"),
        (COMPLETIONS, b'{"prompt": ' + 100_000 * b"["),
        (COMPLETIONS, b'{"a":' * 100_000),
        (COMPLETIONS, b'{"prompt": "a"}\x00'),
    ],
)  # fmt: skip
def test_what_the_server_will_refuse_is_left_to_it(path, fields):
    assert asked(path, fields) is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("5", 5), ("-5", -5), ("0", 0), ("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63)),
        ('"5"', 5), ('" 5 "', 5), ('"+5"', 5), ('"1_0"', 10), ('"5.0"', 5), ('"5.00"', 5), ('"00005"', 5), ('"\\u00a05"', 5),
        ("true", 1), ("3.0", 3), ("1e3", 1000), ("-0.0", 0),
    ],
)  # fmt: skip
def test_a_priority_of_the_clients_own_that_vllm_obeys(written, expected):
    """Each was put to vLLM's field, an int of pydantic 2.14 with the same bounds."""
    body = b'{"prompt": "a", "priority": %s}' % written.encode()
    assert asked(COMPLETIONS, body).client_priority == expected
    assert asked(COMPLETIONS, body, header_priority=77).client_priority == 77


@pytest.mark.parametrize(
    "written",
    ["9223372036854775808", "-9223372036854775809", "9223372036854775807.0", "3.7", "1e300", "NaN", "Infinity", "null", "[]", "{}",
     '"x"', '""', '"5."', '".0"', '"5.5"', '"5e2"', '"0x5"', '"1__0"', '"_1"', '"\\u0663"', '"99999999999999999999"'],
)  # fmt: skip
def test_a_priority_that_vllm_refuses(written):
    assert asked(COMPLETIONS, b'{"prompt": "a", "priority": %s}' % written.encode()) is None


def test_a_priority_where_no_field_is_looked_at():
    assert asked(MESSAGES, {"messages": [user("a")], "priority": "nonsense"}).client_priority is None
    assert asked(MESSAGES, {"messages": [user("a")], "priority": 5}, header_priority=6).client_priority == 6


def test_a_member_that_comes_twice_counts_in_its_last_place():
    assert asked(COMPLETIONS, b'{"prompt": "a", "prompt": "b", "priority": 1, "priority": 2}') == Asked(
        texts=("b",), prompt_chars=1, max_tokens=16, client_priority=2
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_every_encoding_that_the_server_reads(encoding):
    assert asked(COMPLETIONS, '{"prompt": "日本"}'.encode(encoding)).texts == ("日本",)


def test_half_a_surrogate_pair_costs_one_character_and_not_the_score():
    for body in (rb'{"prompt": "a\ud800b"}', b'{"prompt": "a\xed\xa0\x80b"}'):
        assert asked(COMPLETIONS, body).texts == ("a?b",)
    assert asked(COMPLETIONS, rb'{"prompt": "\ud83d\ude00"}').texts == ("😀",)


def test_texts_are_clipped_and_prompts_are_measured_whole():
    whole = asked(CHAT, {"messages": [user("x" * 100_000)]})
    assert whole.texts == ("x" * MAX_CHARS,)
    assert whole.prompt_chars == 100_000


@pytest.mark.parametrize(("n", "samples"), [(0, 1), (-3, 1), (True, 1), ("2", 1), (2.0, 1), (None, 1), (10**400, MAX_COUNT)])
def test_nonsense_in_n_is_the_servers_to_refuse(n, samples):
    assert asked(COMPLETIONS, {"prompt": "a", "n": n}).samples == samples


@pytest.mark.parametrize(
    ("limit", "max_tokens"), [(0, 0), (-1, None), (True, None), ("5", None), (5.0, None), (10**400, MAX_COUNT)]
)
def test_nonsense_in_the_limit_is_the_servers_to_refuse(limit, max_tokens):
    assert asked(CHAT, {"messages": [], "max_tokens": limit}).max_tokens == max_tokens


def test_a_class_delay_is_handed_on():
    assert asked(COMPLETIONS, {"prompt": "a"}, class_delay_ms=30).class_delay_ms == 30


def test_measuring_looks_at_so_many_values_and_no_more():
    chars = asked(CHAT, {"messages": [user([["x"]] * 3 * MAX_NODES)]}).prompt_chars
    assert 0 < chars <= MAX_NODES


@given(
    st.sampled_from(ENDPOINTS),
    st.dictionaries(NAMES | st.text(), JSON, max_size=6),
    st.integers(1, 16),
    st.none() | st.integers(),
)
@settings(deadline=None)
def test_nothing_that_is_json_raises(endpoint, fields, max_prompts, header_priority):
    body = json.dumps(fields).encode()
    found = read_request(endpoint, body, max_prompts=max_prompts, header_priority=header_priority)
    if found is not None:
        assert len(found.texts) <= max_prompts
        assert all(len(text) <= MAX_CHARS and text.encode() is not None for text in found.texts)
        assert 1 <= found.samples <= MAX_COUNT
        assert found.max_tokens is None or 0 <= found.max_tokens <= MAX_COUNT
        assert found.prompt_chars >= 0
        assert found.client_priority is None or isinstance(found.client_priority, int)


@given(st.sampled_from(ENDPOINTS), st.binary())
@settings(deadline=None)
def test_nothing_at_all_raises(endpoint, body):
    assert isinstance(read_request(endpoint, body, max_prompts=4), Asked | None)
