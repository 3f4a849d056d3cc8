"""How items of a ScoreStream share messages: both ways several in one, where the client can read that. A message costs gRPC more than
what is in it, and answers come in batches, because prompts run in batches."""

from collections.abc import Sequence

from pars.v1 import ranker_pb2
from sidecar.errors import InvalidRequestError

MAX_REPLIES = 64
"""In one message: by then the cost of the message itself is spread thin. Some 100 bytes each for one prompt."""

StreamItem = ranker_pb2.ScoreStreamRequest


class StreamMessages:
    """Of one stream, whose client says once that it takes several replies in a message."""

    def __init__(self) -> None:
        self._max_replies = 1

    def unpack(self, message: StreamItem) -> Sequence[StreamItem]:
        """The items of a message, the one that carries the others first. Raises InvalidRequestError when one of the others carries some
        as well."""
        if message.takes_more:
            self._max_replies = MAX_REPLIES
        if not message.more:
            return (message,)
        if any(item.more for item in message.more):
            raise InvalidRequestError("an item in the field more has items of its own there")
        return (message, *message.more)

    def pack(self, replies: list[ranker_pb2.ScoreStreamResponse]) -> ranker_pb2.ScoreStreamResponse:
        """Take the first replies out of the list and return them as one message."""
        first, *more = replies[: self._max_replies]
        del replies[: self._max_replies]
        first.takes_more = True
        first.more.extend(more)
        return first
