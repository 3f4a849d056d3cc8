"""Parsing that cannot raise. gRPC answers a parser's exception with INTERNAL; a bad message is the caller's INVALID_ARGUMENT."""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from sidecar.errors import InvalidRequestError

MessageT = TypeVar("MessageT", bound=Message)


class Unreadable:
    """Stands for a message that could not be parsed: junk bytes, or text that is not UTF-8."""


def parser(message_type: type[MessageT]) -> Callable[[bytes], MessageT | Unreadable]:
    """A request deserializer for gRPC that never raises."""

    def parse(content: bytes) -> MessageT | Unreadable:
        try:
            return message_type.FromString(content)
        except DecodeError:
            return Unreadable()

    return parse


def readable(message: MessageT | Unreadable) -> MessageT:
    """The message itself. Raises InvalidRequestError for an Unreadable."""
    if isinstance(message, Unreadable):
        raise InvalidRequestError("the message cannot be parsed: it is not a message of this type, or its text is not UTF-8")
    return message
