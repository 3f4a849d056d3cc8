"""Every kind of request that a hook could spoil, as bytes on the wire, and what of an answer must be the same with and without it."""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from generating import EXACTLY, batch, chat, completion, invocation, message, response, user
from http_wire import JSON, Reply, Wire, chunked, encoded, head
from vllm_server import MODEL, VllmServer

Tool = dict[str, Any]
TOOL: Tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
MEGABYTES = "many words " * 200_000
"""2.2 MB."""


@dataclass(frozen=True)
class Case:
    """One request, and what the hook must make of it."""

    path: str
    content: object = b""
    """Bytes as they are, anything else as JSON."""
    outcome: str | None = "scored"
    """What the hook counts; None: nothing, the request is none of its business."""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    pieces: int = 0
    """Sent with `transfer-encoding: chunked` in this many pieces; 0: with a content-length."""

    def raw(self, server_headers: Mapping[str, str]) -> bytes:
        body = encoded(self.content)
        if not self.pieces:
            return head(self.method, self.path, {**server_headers, **self.headers, "content-length": str(len(body))}) + body
        size = -(-len(body) // self.pieces)
        parts = [body[start : start + size] for start in range(0, len(body), size)]
        return head(self.method, self.path, {**server_headers, **self.headers, "transfer-encoding": "chunked"}) + chunked(parts)


def _good() -> dict[str, Case]:
    requests = {
        "a completion": completion("[q=0.3] once upon a time"),
        "a streamed completion": completion("once upon a time", stream=True),
        "a streamed completion with usage": completion("once", stream=True, stream_options={"include_usage": True}),
        "a completion with logprobs and echo": completion("once", logprobs=2, echo=True),
        "two samples": completion("once", n=2, temperature=0.7, seed=7),
        "a list of prompts": completion(["one", "two", "three"]),
        "a streamed list of prompts": completion(["one", "two"], stream=True),
        "a completion of non-Latin text": completion("语言模型 и языки 🙂"),
        "a completion with half a surrogate pair": completion("broken \ud83d text"),
        "a completion with unknown fields": completion("once", what_is_this=[1, {"a": None}]),
        "a chat": chat("hello"),
        "a streamed chat": chat("hello", stream=True),
        "a chat in parts": chat("", messages=[user([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])]),
        "a chat with a system message": chat("", messages=[{"role": "system", "content": "be brief"}, user("hello")]),
        "a chat of several turns": chat("", messages=[user("hi"), {"role": "assistant", "content": "yes?"}, user("hello")]),
        "a chat with tools": chat("hello", tools=[TOOL], tool_choice="none"),
        "a chat with tools that the server cannot call": chat("hello", tools=[TOOL]),
        "a chat with an image that the model cannot read": chat(
            "", messages=[user([{"type": "text", "text": "what?"}, IMAGE])]
        ),
        "a chat batch": batch("hello"),
        "an invocation": invocation("hello"),
        "a response": response("hello"),
        "a streamed response": response("hello", stream=True),
        "a response to items": response([{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]),
        "a response with instructions": response("hello", instructions="be brief"),
        "a message": message("hello"),
        "a streamed message": message("hello", stream=True),
        "a message in blocks": message("", messages=[user([{"type": "text", "text": "hello"}])], system="be brief"),
        "an unknown model": completion("once", model="nobody"),
        "a negative limit": completion("once", -4),
        "an impossible temperature": chat("hello", temperature=-1),
        "a prompt too long for the model": completion("word " * 40_000),
        "a response to an earlier one that is gone": response("hello", previous_response_id="resp_gone"),
    }
    return {name: Case(request.path, request.content) for name, request in requests.items()}


def _unscored() -> dict[str, Case]:
    def case(request: Any, outcome: str, **changes: Any) -> Case:
        return Case(request.path, request.content, outcome, **changes)

    return {
        "token ids": case(completion([5, 6, 7]), "no_text"),
        "lists of token ids": case(completion([[5, 6], [7, 8]]), "no_text"),
        "an empty list of prompts": case(completion([]), "no_text"),
        "no prompt": Case("/v1/completions", {"model": MODEL, "max_tokens": 3}, "no_text"),
        "a chat of nothing": case(chat("", messages=[]), "no_text"),
        "an image alone": case(chat("", messages=[user([IMAGE])]), "no_text"),
        "a priority in the body": case(completion("once", priority=3), "client_priority"),
        "a priority of text": case(completion("once", priority="many"), "unreadable"),
        "a priority of null": case(completion("once", priority=None), "unreadable"),
        "a fractional priority": case(chat("hello", priority=3.7), "unreadable"),
        "a priority past 64 bits": case(completion("once", priority=2**63), "unreadable"),
        "a prompt of numbers and text": case(completion(["a", 1, None]), "unreadable"),
        "a prompt that is an object": case(completion({"text": "once"}), "unreadable"),
        "messages of text": case(chat("", messages="hello"), "unreadable"),
        "messages of numbers": case(chat("", messages=[1, 2]), "unreadable"),
        "an input of null": case(response(None), "unreadable"),
        "2 MB of prompt": case(completion(MEGABYTES), "too_large"),
        "2 MB of prompt that the server cuts": case(completion(MEGABYTES, truncate_prompt_tokens=32), "too_large"),
        "2 MB beside the prompt": case(chat("hello", user=MEGABYTES), "too_large"),
        "2 MB in pieces": case(chat("hello", user=MEGABYTES), "too_large", pieces=40),
    }


def _bytes() -> dict[str, Case]:
    body = encoded(completion("once upon a time").content)
    chat_body = encoded(chat("hello").content)

    def case(content: bytes, outcome: str = "unreadable", path: str = "/v1/completions", **changes: Any) -> Case:
        return Case(path, content, outcome, **changes)

    return {
        "no body": case(b""),
        "white space": case(b"  \n "),
        "half a body": case(body[:-20]),
        "a body and a half": case(body + b"}"),
        "bare words": case(b"hello there"),
        "null": case(b"null"),
        "a list": case(b"[1, 2]"),
        "a string": case(b'"text"', path="/v1/chat/completions"),
        "invalid UTF-8": case(body.replace(b"once", b"\xff\xfe")),
        "ten thousand brackets": case(b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        "UTF-16": case(body.decode().encode("utf-16"), "scored"),
        "a byte order mark": case(b"\xef\xbb\xbf" + body, "scored"),
        "white space around": case(b"\r\n\t " + body + b" \n", "scored"),
        "a member twice": case(b'{"prompt": 7, ' + body[1:], "scored"),
        "NaN": case(body.replace(b'"temperature": 0', b'"temperature": NaN'), "scored"),
        "a number of a thousand digits": case(body.replace(b'"max_tokens": 12', b'"max_tokens": ' + b"9" * 1000), "scored"),
        "a number of ten thousand digits": case(body.replace(b'"max_tokens": 12', b'"max_tokens": ' + b"9" * 10_000)),
        "compressed": case(gzip.compress(body), headers=JSON | {"content-encoding": "gzip"}),
        "said to be compressed": case(body, headers=JSON | {"content-encoding": "gzip"}),
        "text by its type": case(body, headers={"content-type": "text/plain"}),
        "a form by its type": case(b"prompt=once", headers={"content-type": "application/x-www-form-urlencoded"}),
        "JSON with a charset": case(body, "scored", headers={"content-type": "application/json; charset=utf-8"}),
        "no type": case(body, "scored", headers={}),
        "one piece": case(body, "scored", pieces=1),
        "a piece for each byte": case(body, "scored", pieces=len(body)),
        "a streamed chat sent in pieces": case(
            encoded(chat("hello", stream=True).content), "scored", "/v1/chat/completions", pieces=7
        ),
        "pieces of nonsense": case(b"hello there, this is no JSON", pieces=5),
        "a priority in the header": case(body, "client_priority", headers=JSON | {"x-vllm-priority": "4"}),
        "a priority of text in the header": case(body, "scored", headers=JSON | {"X-Vllm-Priority": "many"}),
        "a request id": case(body, "scored", headers=JSON | {"x-request-id": "mine"}),
        "a client that asks before it sends": case(body, "scored", headers=JSON | {"expect": "100-continue"}),
        "a query string": case(chat_body, "scored", "/v1/chat/completions?a=1&b=2"),
    }


def _none_of_its_business() -> dict[str, Case]:
    body = encoded(completion("once upon a time").content)
    return {
        "an unknown path": Case("/v1/nothing", {"prompt": "once"}, None),
        "a slash too many": Case("/v1/completions/", body, None),
        "GET of completions": Case("/v1/completions", b"", None, "GET", {}),
        "PUT of completions": Case("/v1/completions", body, None, "PUT"),
        "HEAD of completions": Case("/v1/completions", b"", None, "HEAD", {}),
        "OPTIONS of completions": Case("/v1/completions", b"", None, "OPTIONS", {"origin": "http://a.example"}),
        "a question before a browser's request": Case(
            *("/v1/completions", b"", None, "OPTIONS"),
            {"origin": "http://a.example", "access-control-request-method": "POST"},
        ),
        "DELETE of a response": Case("/v1/responses/resp_1", b"", None, "DELETE", {}),
        "GET of a response": Case("/v1/responses/resp_1", b"", None, "GET", {}),
        "the list of models": Case("/v1/models", b"", None, "GET", {}),
        "health": Case("/health", b"", None, "GET", {}),
        "tokenize": Case("/tokenize", {"model": MODEL, "prompt": "once"}, None),
        "count of a message's tokens": Case("/v1/messages/count_tokens", message("hello").content, None),
    }


ENDPOINTS = ("/v1/completions", "/v1/chat/completions", "/v1/chat/completions/batch", "/v1/responses", "/v1/messages")


def _unauthenticated() -> dict[str, Case]:
    everything = EXACTLY | {"prompt": "once", "messages": [user("once")], "input": "once", "max_tokens": 3}
    cases = {f"no key at {path}": Case(path, everything, "scored", headers=JSON | {"authorization": ""}) for path in ENDPOINTS}
    # A batch wants lists of messages.
    cases[f"no key at {ENDPOINTS[2]}"] = Case(ENDPOINTS[2], everything, "unreadable", headers=JSON | {"authorization": ""})
    return cases | {
        "a wrong key": Case("/v1/completions", everything, "scored", headers=JSON | {"authorization": "Bearer wrong"}),
        "a wrong key and nonsense": Case(
            "/v1/completions", b"{", "unreadable", headers=JSON | {"authorization": "Bearer wrong"}
        ),
        "a wrong key and 2 MB": Case(
            *("/v1/completions", completion(MEGABYTES).content, "too_large"), headers=JSON | {"authorization": "Bearer wrong"}
        ),
    }


CASES = _good() | _unscored() | _bytes() | _none_of_its_business() | _unauthenticated()
"""Name → case. The names read as the tests' ids."""


async def reply_to(server: VllmServer, case: Case) -> Reply:
    async with Wire(server.port) as wire:
        await wire.write(case.raw(server.headers()))
        return await wire.reply(bodyless=case.method == "HEAD")


def essence(reply: Reply) -> object:
    """What must be the same with and without the hook: status, headers, and the body but for ids and times of day.

    vLLM joins tokens of a stream when it is busy, so of a stream the text and the kinds of events must be the same, not the cuts.
    """
    told = {name: value for name, value in reply.headers.items() if name not in ("date", "x-request-id", "content-length")}
    if "text/event-stream" in reply.headers.get("content-type", ""):
        return reply.status, told, _stream_essence(_masked(reply.body.decode()))
    return reply.status, told, _masked(reply.body.decode())


_MASKS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\b(cmpl|chatcmpl|resp|msg|rs|chatcmpl-tool|call|fc)[-_][0-9a-f-]{8,}", r"\1-*"),
    (r'("(?:created|created_at|completed_at)": ?)[0-9.]+', r"\1*"),
    (r'("(?:item_id|id)": ?)"[^"]*"', r"\1*"),
]

_TEXT = re.compile(r'"(text|content|delta)": ?("(?:[^"\\]|\\.)*")')
_TEXT_ALONE = re.compile(r'("delta":\{"content": \*\}|"text": \*).*"finish_reason":null')


def _masked(text: str) -> str:
    for pattern, instead in _MASKS:
        text = re.sub(pattern, instead, text)
    return text


def _stream_essence(text: str) -> object:
    """Choice → its text and the kinds of its events, which are those that carry its index. Choices come in any order."""
    texts: dict[str, str] = defaultdict(str)
    shapes: dict[str, list[str]] = defaultdict(list)
    # By events and not by lines: the empty line behind an event would stand elsewhere where that event need not be there.
    for event in text.split("\n\n"):
        choice = "".join(re.findall(r'"index": ?([0-9]+)', event))
        texts[choice] += "".join(json.loads(told[2]) for told in _TEXT.finditer(event))
        shape = re.sub(r'("(?:sequence_number)": ?)[0-9]+', r"\1*", _TEXT.sub(r'"\1": *', event))
        # A busy engine may join all of the text with the chunk that ends it, so chunks of nothing but text need not be there.
        if shape not in shapes[choice] and not _TEXT_ALONE.search(shape):
            shapes[choice].append(shape)
    return texts, shapes
