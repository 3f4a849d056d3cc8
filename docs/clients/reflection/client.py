"""Calls any unary method of a PARS sidecar with nothing but its address: types come from the server, by reflection.

    python client.py ADDRESS DEADLINE_MS list
    python client.py ADDRESS DEADLINE_MS pars.v1.RankerService/Score '{"prompts": ["What is 2+2?"]}'

Needs grpcio and grpcio-reflection, no generated stubs. A call that fails prints its gRPC status on stderr and exits with 64 plus
the status code. Ctrl-C cancels the call.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

USAGE = "usage: client.py ADDRESS DEADLINE_MS list | SERVICE/METHOD [JSON]"


class UsageError(Exception):
    """The command line makes no sense to this server."""


class Details(NamedTuple):
    """How one call is to be made: gRPC's own class for it, ClientCallDetails, has no constructor."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class Deadline(grpc.StreamStreamClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Gives the reflection calls their deadline: the descriptor database sets none, so a frozen server would hold it for ever."""

    def __init__(self, time_left_s: Callable[[], float]) -> None:
        self._time_left_s = time_left_s

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        rest = (details.metadata, details.credentials, details.wait_for_ready, details.compression)
        return continuation(Details(details.method, self._time_left_s(), *rest), requests)


def call(channel: grpc.Channel, method_name: str, request_json: str, time_left_s: Callable[[], float]) -> str:
    """Call `package.Service/Method` with a request in JSON and return the reply in JSON. Raises UsageError and grpc.RpcError."""
    service_name, _, short_name = method_name.partition("/")
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, Deadline(time_left_s))))
    try:
        method = pool.FindServiceByName(service_name).methods_by_name[short_name]
    except KeyError:
        raise UsageError(f"the server has no method {method_name}") from None
    if method.client_streaming or method.server_streaming:
        raise UsageError(f"{method_name} is a stream")
    reply_class = message_factory.GetMessageClass(method.output_type)
    try:
        request = json_format.Parse(request_json, message_factory.GetMessageClass(method.input_type)())
    except json_format.ParseError as error:
        raise UsageError(f"the request is no {method.input_type.full_name}: {error}") from None
    invoke = channel.unary_unary(f"/{method_name}", lambda message: message.SerializeToString(), reply_class.FromString)
    reply = invoke(request, timeout=time_left_s())
    return json_format.MessageToJson(
        reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, ensure_ascii=False
    )


def services(channel: grpc.Channel, time_left_s: Callable[[], float]) -> Iterator[str]:
    """Yield the names of the server's services. Raises grpc.RpcError."""
    yield from ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, Deadline(time_left_s))).get_services()


def main(arguments: list[str]) -> int:
    """Make one call. Returns the exit code."""
    if len(arguments) not in (3, 4) or not arguments[1].isdecimal() or int(arguments[1]) == 0:
        print(USAGE, file=sys.stderr)
        return 2
    give_up = time.monotonic() + int(arguments[1]) / 1000

    def time_left_s() -> float:
        return max(give_up - time.monotonic(), 0.001)

    try:
        with grpc.insecure_channel(arguments[0]) as channel:
            if arguments[2] == "list":
                print(*services(channel, time_left_s), sep="\n")
            else:
                print(call(channel, arguments[2], "".join(arguments[3:]) or "{}", time_left_s))
    except grpc.RpcError as error:
        print(f"status {error.code().value[0]}: {error.details()}", file=sys.stderr)
        return 64 + int(error.code().value[0])
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("status 1: cancelled", file=sys.stderr)
        return 64 + 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with Ctrl-C ignored
    sys.exit(main(sys.argv[1:]))
