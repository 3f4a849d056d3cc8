"""Watching RPCs from outside: their handlers are wrapped once, when a server registers them.

Not a gRPC interceptor, because that one is asked for a handler on every call, and not code inside the servicers, because health and
reflection are not ours. Whoever watches is told of every call twice: when it reaches its handler and when it has ended, with the
status it ended with. A server that nobody watches has the handlers as they are.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal

import grpc

CallKind = Literal["unary", "client_stream", "server_stream", "bidi_stream"]

CallEnd = Callable[[grpc.StatusCode, object], None]
"""Told that a call has ended: its status, and its reply message where it had exactly one, else None. Quick; must not raise."""

CallBegin = Callable[[Any], CallEnd]
"""Told that a call begins, with its grpc.aio.ServicerContext. Quick; must not raise."""

Watcher = Callable[[str, str, CallKind], CallBegin | None]
"""Asked once per RPC, at registration, with service and method: who is told of its calls? None: nobody."""


class WatchedRegistrar:
    """Stands in for an asyncio server while services are registered, and wraps what they register.

    It has what the generated `add_…Servicer_to_server` functions use of a server.
    """

    def __init__(self, server: Any, watchers: Sequence[Watcher]) -> None:
        self._server = server
        self._watchers = tuple(watchers)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[Any]) -> None:
        """Does nothing: generated code registers every handler twice, and the other time with its name."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        """Registers the handlers, watched."""
        handlers = {
            method: watched(handler, service_name, method, self._watchers) for method, handler in method_handlers.items()
        }
        # As generic ones: the asyncio server looks nowhere else before grpcio 1.84.
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, handlers),))


def watched(
    handler: "grpc.RpcMethodHandler[Any, Any]", service: str, method: str, watchers: Sequence[Watcher]
) -> "grpc.RpcMethodHandler[Any, Any]":
    """The handler, with every watcher that wants to told of its calls."""
    parts: Any = handler
    kind, member, rewrap = _SHAPES[bool(parts.request_streaming), bool(parts.response_streaming)]
    behaviour = getattr(parts, member)
    for watcher in watchers:
        if (begin := watcher(service, method, kind)) is not None:
            wrap = _watched_generator if inspect.isasyncgenfunction(behaviour) else _watched_coroutine
            behaviour = wrap(behaviour, begin)
    again: grpc.RpcMethodHandler[Any, Any] = rewrap(behaviour, parts.request_deserializer, parts.response_serializer)
    return again


_SHAPES: Mapping[tuple[bool, bool], tuple[CallKind, str, Callable[..., Any]]] = {
    (False, False): ("unary", "unary_unary", grpc.unary_unary_rpc_method_handler),
    (True, False): ("client_stream", "stream_unary", grpc.stream_unary_rpc_method_handler),
    (False, True): ("server_stream", "unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, True): ("bidi_stream", "stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""By whether requests and replies are streams: what it is called, where its function is kept, and how a handler is made of one."""


def _watched_coroutine(behaviour: Callable[[Any, Any], Any], begin: CallBegin) -> Callable[[Any, Any], Any]:
    async def call(request: Any, context: Any) -> Any:
        end = begin(context)
        given_s = context.time_remaining()
        code, reply = grpc.StatusCode.UNKNOWN, None
        try:
            answer = behaviour(request, context)
            # Not awaitable: a generated stub of an RPC that its servicer lacks. It raises at once.
            reply = await answer if inspect.isawaitable(answer) else answer
            code = _set_code(context) or grpc.StatusCode.OK
            return reply
        except BaseException as error:
            code = _failed_with(error, context, given_s)
            raise
        finally:
            end(code, reply)

    return call


def _watched_generator(behaviour: Callable[[Any, Any], AsyncIterator[Any]], begin: CallBegin) -> Callable[[Any, Any], Any]:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        end = begin(context)
        given_s = context.time_remaining()
        code = grpc.StatusCode.UNKNOWN
        try:
            async for reply in behaviour(request, context):
                yield reply
            code = _set_code(context) or grpc.StatusCode.OK
        except BaseException as error:
            code = _failed_with(error, context, given_s)
            raise
        finally:
            end(code, None)

    return call


LATE_SHARE = 0.1
"""Of a call's time: a call that is cancelled with less than this left has run out of time. The caller's deadline is a little before ours,
which began when the call arrived, so that a caller who gives up in time cancels before our clock says so."""


def _failed_with(error: BaseException, context: Any, given_s: float | None) -> grpc.StatusCode:
    """The status of a call whose handler raised. given_s: the time that was left to it when it began."""
    code = _set_code(context)
    if code is not None and code is not grpc.StatusCode.OK:
        return code
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        # gRPC cancels the handler when the caller hangs up and when the caller's deadline passes; the clock tells which.
        left_s = context.time_remaining()
        in_time = given_s is None or left_s is None or left_s > LATE_SHARE * given_s
        return grpc.StatusCode.CANCELLED if in_time else grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.UNKNOWN


def _set_code(context: Any) -> grpc.StatusCode | None:
    """What abort or set_code said, if anything. gRPC takes numbers there as well."""
    code: grpc.StatusCode | int | None = context.code()
    if isinstance(code, int):
        return _CODES.get(code, grpc.StatusCode.UNKNOWN)
    return code


_CODES = {code.value[0]: code for code in grpc.StatusCode}
