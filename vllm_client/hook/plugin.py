"""Entry point of vLLM's general plugins, for deployments that can pass no --middleware. Off unless PARS_HOOK_PLUGIN is 1.

Second choice, because

- it wraps `AsyncLLM.add_request`, which is no public interface. So it stays out, with a line in the log, when vLLM is outside the
  tested versions or that function has other parameters;
- it sees prompts, not requests: of a conversation only the text that the chat template made. The last user message is found in
  it by what the model's own template writes around one (chat_markers.py), which gives the ranker what the middleware would. With
  another template (--chat-template), a tokenizer without one, or a conversation that does not end with the user, that can fail,
  and the ranker reads the rendered text from its beginning, system prompt first. A tokenizer that renders straight to token ids
  leaves no text at all, and the request counts as middling;
- it sees no headers, so there are no traffic classes; every prompt of a list is a request of its own; and beam search, which
  adds a request for each token and beam, asks each time.

It leaves every priority alone that is not 0, whatever PARS_HOOK_CLIENT_PRIORITY says: it may be the middleware's, which keeps its
word when both are on. Offline `LLM` goes another way and is left alone: see vllm_client.offline.

vLLM calls `register` in every process: API servers, engine core, workers. In all of them it only wraps. The hook, and with it a
connection, is made by the first request, so only in API servers and not before they have forked whatever they fork.
"""

import os
from collections.abc import Mapping

PLUGIN_VARIABLE = "PARS_HOOK_PLUGIN"
"""Switches the plugin on. No setting of the hook itself, so the middleware passes over it."""

_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"", "0", "false", "no", "off"})


def register() -> None:
    """Wrap `AsyncLLM.add_request` when PARS_HOOK_PLUGIN says so, once per process; else do nothing.

    Raises HookSettingsError for settings that cannot be used. vLLM lets that through, so that it does not start: as with the
    middleware, better no server than one that silently ignores what was asked for.
    """
    if not _switched_on(os.environ):
        return
    from vllm_client.hook.add_request import install
    from vllm_client.hook.settings import HookSettings

    install(HookSettings.from_environment(os.environ))


def _switched_on(environment: Mapping[str, str]) -> bool:
    value = environment.get(PLUGIN_VARIABLE, "").strip().lower()
    if value not in _ON | _OFF:
        from vllm_client.hook.settings import HookSettingsError

        raise HookSettingsError(f"{PLUGIN_VARIABLE} is {value!r}, 1 or 0 is wanted")
    return value in _ON
