"""How a conversation becomes ranker text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pars.text import MAX_LOOKS, chat_text, encodable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "user", "input_text"]) | st.text(), children, max_size=4
        )
    ),
    max_leaves=20,
)


def user(content):
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        pytest.param([user("one prompt")], "one prompt", id="a single prompt is itself"),
        pytest.param(
            [{"role": "system", "content": "be kind"}, user("first"), {"role": "assistant", "content": "yes"}, user("second")],
            "second",
            id="the last user message",
        ),
        pytest.param([user("asked"), {"role": "assistant", "content": "half an ans"}], "asked", id="an answer to go on with"),
        pytest.param(
            [user("asked"), {"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "42"}],
            "asked",
            id="a tool's answer",
        ),
        pytest.param(
            [
                user(
                    [
                        {"type": "text", "text": "What is"},
                        {"type": "image_url", "image_url": {"url": "data:"}},
                        {"type": "text", "text": "this?"},
                    ]
                )
            ],
            "What is\nthis?",
            id="parts are joined, images left out",
        ),
        pytest.param(
            [user([{"type": "input_text", "text": "hi"}, {"type": "input_image"}])], "hi", id="parts of OpenAI's responses"
        ),
        pytest.param(
            [user("asked"), user([{"type": "tool_result", "tool_use_id": "t", "content": "42"}])],
            "asked",
            id="Anthropic's tool result",
        ),
        pytest.param([user("asked"), user([{"type": "image_url"}])], "asked", id="an image alone has no text"),
        pytest.param([user("asked"), user(" \n\t")], "asked", id="white space is no text"),
        pytest.param([user("  kept as it is \n")], "  kept as it is \n", id="nothing is stripped"),
        pytest.param([user(["bare", {"text": "untyped"}])], "bare\nuntyped", id="parts without a type"),
        pytest.param([user([{"type": None, "text": "from a table"}])], "from a table", id="parts with every member"),
        pytest.param([{"role": "system", "content": "be kind"}], "", id="no user"),
        pytest.param([], "", id="no message"),
        pytest.param([user(None)], "", id="no content"),
    ],
)
def test_the_text_of_a_conversation(messages, text):
    assert chat_text(messages) == text
    assert chat_text(json.loads(json.dumps(messages))) == text


ODD_PARTS = [{"type": ["text"], "text": "x"}, {"type": "text", "text": 3}, {"type": "text"}, None, 3]


@pytest.mark.parametrize(
    "messages",
    [
        *(None, 3, "text", {"role": "user", "content": "x"}, [None, 3, "x", [], {}], [{"role": ["user"], "content": "x"}]),
        *([user(3)], [user({"type": "text", "text": "x"})], [user(ODD_PARTS)]),
    ],
)
def test_other_shapes_are_passed_over(messages):
    assert chat_text(messages) == ""


def test_it_looks_so_far_and_no_further():
    blank = {"type": "image_url"}
    assert chat_text([user("asked"), *[{"role": "tool"}] * (MAX_LOOKS - 1)]) == "asked"
    assert chat_text([user("asked"), *[{"role": "tool"}] * MAX_LOOKS]) == ""
    assert chat_text([user([*[blank] * (MAX_LOOKS - 2), {"type": "text", "text": "asked"}])]) == "asked"
    assert chat_text([user([*[blank] * MAX_LOOKS, {"type": "text", "text": "asked"}])]) == ""
    assert chat_text([user("first"), user([blank] * MAX_LOOKS)]) == ""


@pytest.mark.parametrize(
    ("text", "sent"),
    [("a\ud800b", "a?b"), ("\udc00\ud800", "??"), ("\U0001f600 日本", "\U0001f600 日本"), ("plain", "plain"), ("", "")],
)
def test_half_a_surrogate_pair_becomes_a_question_mark(text, sent):
    assert encodable(text) == sent
    encodable(text).encode("utf-8")


@given(JSON | st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": JSON})))
@settings(deadline=None)
def test_it_takes_whatever_strangers_send(messages):
    assert isinstance(chat_text(messages), str)
