"""Prompts in every form that vLLM's engines take, as asked."""

from types import SimpleNamespace
from typing import Any

import pytest

from pars.text import MAX_CHARS
from vllm_client.hook.asked import Asked
from vllm_client.hook.chat_markers import ChatMarkers
from vllm_client.hook.engine_call import asked_of_call, host_of_engine, markers_of_engine, text_of
from vllm_client.hook.host import Host

PARAMS = SimpleNamespace(max_tokens=50, n=3)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a question", "a question"),
        ({"prompt": "a question"}, "a question"),
        ({"type": "token", "prompt_token_ids": [1, 2], "prompt": "a question", "arrival_time": 1.5}, "a question"),
        ({"encoder_prompt": "read this", "decoder_prompt": "go on"}, "read this"),
        ({"type": "enc_dec", "encoder_prompt": {"prompt": "read"}, "decoder_prompt": {"prompt": "on"}}, "read"),
        (
            [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a question"}]}],
            "a question",
        ),
        ("", None),
        (" \n", None),
        ([1, 2, 3], None),
        ([], None),
        ({"prompt_token_ids": [1, 2]}, None),
        ({"prompt_embeds": object()}, None),
        ({"prompt": None}, None),
        ({"prompt": 5}, None),
        ([{"role": "assistant", "content": "no user"}], None),
        (None, None),
        (object(), None),
    ],
)
def test_the_text_of_a_prompt(prompt: object, text: str | None) -> None:
    assert text_of(prompt) == text


def test_a_call_as_asked() -> None:
    asked = asked_of_call("a question", PARAMS, priority=7)
    assert asked == Asked(texts=("a question",), prompt_chars=10, max_tokens=50, samples=3, client_priority=7)


def test_priority_zero_is_vllms_default_and_none_of_the_callers() -> None:
    assert asked_of_call("a", PARAMS, priority=0).client_priority is None
    assert asked_of_call("a", PARAMS, priority=-1).client_priority == -1


@pytest.mark.parametrize("params", [None, SimpleNamespace(max_tokens=None, n=None), SimpleNamespace(max_tokens="x", n=0.5)])
def test_sampling_params_without_limits(params: object) -> None:
    asked = asked_of_call("a", params)
    assert (asked.max_tokens, asked.samples) == (None, 1)


def test_token_ids_have_a_length_and_no_text() -> None:
    assert asked_of_call([5] * 25, PARAMS) == Asked(prompt_chars=100, max_tokens=50, samples=3)
    assert asked_of_call({"prompt_token_ids": [5] * 25}, PARAMS).prompt_chars == 100


def test_the_engines_own_count_of_tokens_beats_an_estimate() -> None:
    rendered = {"type": "token", "prompt_token_ids": [5] * 25, "prompt": "a question"}
    assert asked_of_call(rendered, PARAMS).prompt_chars == 100


def test_prompt_text_stands_in_for_a_prompt_without_text() -> None:
    assert asked_of_call([1, 2], PARAMS, prompt_text="their text").texts == ("their text",)
    assert asked_of_call("own", PARAMS, prompt_text="their text").texts == ("own",)


def test_texts_are_clipped_and_can_be_sent() -> None:
    assert asked_of_call("x" * (MAX_CHARS + 5), PARAMS).texts == ("x" * MAX_CHARS,)
    (text,) = asked_of_call("half a pair: \ud800", PARAMS).texts
    assert text.encode() == b"half a pair: ?"


def test_the_last_user_message_of_a_rendered_text() -> None:
    markers = ChatMarkers("<user>", "</user>")
    asked = asked_of_call("<sys>a long one</sys><user>why?</user><reply>", PARAMS, markers=markers)
    assert asked.texts == ("why?",)
    assert asked.prompt_chars == len("<sys>a long one</sys><user>why?</user><reply>")


def test_what_an_engine_tells_of_itself() -> None:
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(policy="fcfs", max_num_seqs=8), parallel_config=SimpleNamespace(_api_process_count=2)
    )
    host = host_of_engine(SimpleNamespace(vllm_config=config))
    assert (host.engine_obeys, host.max_num_seqs, host.api_servers) == (False, 8, 2)
    assert host_of_engine(object()) == Host()


class Tokenizer:
    def apply_chat_template(self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        assert add_generation_prompt
        return "".join(f"<{m['role']}>{m['content']}</{m['role']}>" for m in messages) + "<assistant>"


def test_markers_come_from_the_engines_own_template() -> None:
    engine = SimpleNamespace(renderer=SimpleNamespace(tokenizer=Tokenizer()))
    assert markers_of_engine(engine) == ChatMarkers("<user>", "</user><assistant>")


@pytest.mark.parametrize("engine", [None, object(), SimpleNamespace(renderer=SimpleNamespace(tokenizer=None))])
def test_an_engine_without_a_tokenizer_has_no_markers(engine: Any) -> None:
    assert markers_of_engine(engine) is None
