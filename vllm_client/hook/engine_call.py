"""What an engine is asked to generate → asked, and what the engine tells of itself. For the hooks that sit on the engine.

vLLM is never imported; a prompt is told by its shape. Nothing here raises for a prompt or engine of an unknown one.
"""

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from pars.text import chat_text, clip, encodable
from vllm_client.hook.asked import CHARS_PER_TOKEN, Asked
from vllm_client.hook.chat_markers import ChatMarkers, learn_markers
from vllm_client.hook.host import Host, hook_logger, inspect_host, tell_about
from vllm_client.hook.settings import HookSettings
from vllm_client.hook.values import count


def text_of(prompt: object) -> str | None:
    """Return the ranker text of a prompt as vLLM's engines and `LLM` take them, not clipped; None when it has none.

    A text; a dict with "prompt", raw or rendered (then with "type" and token ids beside it); a dict with an "encoder_prompt", of
    which that counts; a conversation, as a list of messages. Token ids and embeddings alone have no text.
    """
    text: object = prompt
    if isinstance(prompt, Mapping):
        text = text_of(prompt["encoder_prompt"]) if "encoder_prompt" in prompt else prompt.get("prompt")
    elif isinstance(prompt, list | tuple):
        # Only looked at when it can be a conversation: a prompt of token ids may have a hundred thousand.
        text = chat_text(prompt) if prompt and isinstance(prompt[0], Mapping) else None
    return text if isinstance(text, str) and text and not text.isspace() else None


def asked_of_call(
    prompt: object,
    sampling_params: object,
    *,
    prompt_text: object = None,
    priority: int = 0,
    markers: ChatMarkers | None = None,
) -> Asked:
    """Return what a call of an engine's `generate` asks for. A priority of 0, vLLM's default, counts as none set.

    `markers` finds the last user message in a text that a chat template has rendered.
    """
    text = text_of(prompt) or text_of(prompt_text)
    ranker_text = text if text is None or markers is None else markers.last_user_text(text)
    return Asked(
        texts=() if ranker_text is None else (encodable(clip(ranker_text)[0]),),
        prompt_chars=CHARS_PER_TOKEN * _token_count(prompt) or len(text or ""),
        max_tokens=count(getattr(sampling_params, "max_tokens", None)),
        samples=count(getattr(sampling_params, "n", None)) or 1,
        client_priority=priority or None,
    )


def host_of_engine(engine: object) -> Host:
    """Return what `engine.vllm_config` tells; Host() with nothing known when it is not there."""
    # AsyncLLM holds its configuration by the name that the server's app.state has for it.
    return inspect_host({"app": SimpleNamespace(state=engine)})


def tell_about_engine(host: Host, settings: HookSettings) -> None:
    """Log, once for each engine, what an operator must know about hook and engine together."""
    # There is no HTTP here, so nothing to say about the header for priorities.
    tell_about(host, dataclasses.replace(settings, priority_place="body"), hook_logger())


def markers_of_engine(engine: Any) -> ChatMarkers | None:
    """Learn the markers of the model's chat template; None when the engine has no tokenizer with one. Takes some milliseconds."""
    return learn_markers(
        lambda messages: engine.renderer.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    )


def _token_count(prompt: object) -> int:
    ids = prompt.get("prompt_token_ids") if isinstance(prompt, Mapping) else prompt
    return len(ids) if isinstance(ids, list | tuple) and ids and isinstance(ids[0], int) else 0
