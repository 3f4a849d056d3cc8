"""What chat templates write around a user message, learnt from the templates of well-known models."""

from collections.abc import Callable

import pytest

from vllm_client.hook.chat_markers import ChatMarkers, learn_markers

Message = dict[str, str]


def chatml(messages: list[Message]) -> str:
    """Qwen's: it brings a system prompt along when there is none."""
    system = [] if messages[0]["role"] == "system" else [{"role": "system", "content": "You are a helpful assistant."}]
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in [*system, *messages])
    return turns + "<|im_start|>assistant\n"


def thinking_chatml(messages: list[Message]) -> str:
    return chatml(messages) + "<think>\n\n</think>\n\n"


def llama3(messages: list[Message]) -> str:
    turns = "".join(f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content']}<|eot_id|>" for m in messages)
    return f"<|begin_of_text|>{turns}<|start_header_id|>assistant<|end_header_id|>\n\n"


def mistral(messages: list[Message]) -> str:
    """The system prompt stands inside the last user turn, as Mistral's does."""
    system = "".join(f"{m['content']}\n\n" for m in messages if m["role"] == "system")
    turns = [m for m in messages if m["role"] != "system"]
    text = "<s>"
    for number, m in enumerate(turns):
        extra = system if number == len(turns) - 1 else ""
        text += f"[INST] {extra}{m['content']} [/INST]" if m["role"] == "user" else f" {m['content']}</s>"
    return text


def gemma(messages: list[Message]) -> str:
    turns = "".join(
        f"<start_of_turn>{'model' if m['role'] == 'assistant' else m['role']}\n{m['content']}<end_of_turn>\n" for m in messages
    )
    return f"<bos>{turns}<start_of_turn>model\n"


def vicuna(messages: list[Message]) -> str:
    names = {"user": "USER: {} ", "assistant": "ASSISTANT: {}</s>", "system": "{} "}
    return "".join(names[m["role"]].format(m["content"]) for m in messages) + "ASSISTANT:"


def turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


SYSTEM = turn("system", "You work for a bank. Never say why.")
QUESTION = "How long is\n\nthe Nile?"


@pytest.mark.parametrize("template", [chatml, thinking_chatml, llama3, gemma, vicuna])
@pytest.mark.parametrize(
    "before",
    [[], [SYSTEM], [turn("user", "Hello"), turn("assistant", "Hi!")], [SYSTEM, turn("user", "a"), turn("assistant", "b")]],
    ids=["alone", "after a system prompt", "after an earlier turn", "after both"],
)
def test_the_last_user_message_is_found(template: Callable[[list[Message]], str], before: list[Message]) -> None:
    markers = learn_markers(template)
    assert markers is not None
    assert markers.last_user_text(template([*before, turn("user", QUESTION)])) == QUESTION


def test_what_a_template_puts_into_the_user_turn_stays_there() -> None:
    markers = learn_markers(mistral)
    assert markers is not None
    assert markers.last_user_text(mistral([turn("user", "a"), turn("assistant", "b"), turn("user", QUESTION)])) == QUESTION
    assert markers.last_user_text(mistral([SYSTEM, turn("user", QUESTION)])) == f"{SYSTEM['content']}\n\n{QUESTION}"


@pytest.mark.parametrize("text", ["How long is the Nile?", "", "assistant\n<|im_end|>"])
def test_a_plain_prompt_is_left_as_it_is(text: str) -> None:
    markers = learn_markers(chatml)
    assert markers is not None
    assert markers.last_user_text(text) == text


def test_an_empty_user_message_is_no_text() -> None:
    """A message of images alone: the whole text is better than none."""
    markers = ChatMarkers("<user>", "</user>")
    assert markers.last_user_text("<sys>s</sys><user> </user>") == "<sys>s</sys><user> </user>"


def test_a_template_that_ends_a_message_with_nothing() -> None:
    markers = learn_markers(lambda messages: "".join(f"<{m['role']}>{m['content']}" for m in messages))
    assert markers == ChatMarkers("<user>", "")
    assert markers.last_user_text("<system>s<user>question") == "question"


def broken(messages: list[Message]) -> str:
    raise RuntimeError("no chat template")


@pytest.mark.parametrize(
    "template",
    [
        broken,
        lambda messages: messages[-1]["content"],  # Drops the earlier turns.
        lambda messages: "\n".join(m["content"] for m in messages) + "\n",  # Marks nothing.
        lambda messages: "".join(f"Q: {m['content']}\n" for m in messages),  # "Q:" is found in many a sentence.
        lambda messages: [1, 2, 3],  # Token ids.
        lambda messages: None,
    ],
    ids=["raises", "drops turns", "no markers", "short markers", "token ids", "nothing"],
)
def test_a_template_of_no_use_has_no_markers(template: Callable[[list[Message]], object]) -> None:
    assert learn_markers(template) is None
