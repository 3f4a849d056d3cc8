"""How items of a ScoreStream share messages: both ways several in one, where the client can read that. A message costs gRPC more than
what is in it, and answers come in batches, because prompts run in batches."""

from collections.abc import Sequence

from pars.v1 import ranker_pb2
from sidecar.errors import InvalidRequestError

MAX_ITEMS = 256
"""In one message. An item may be as small as two bytes, and each costs some microseconds before anything bounds it."""

MAX_REPLIES, REPLY_BYTES = 64, 16 * 1024
"""In one message, unless a single one is larger: by then the cost of the message itself is spread thin, and it is far below any limit of
a message's size. A reply for one prompt has some 100 bytes."""

StreamItem = ranker_pb2.ScoreStreamRequest


class StreamMessages:
    """Of one stream, whose client says once that it takes several replies in a message."""

    def __init__(self) -> None:
        self._max_replies = 1

    def unpack(self, message: StreamItem) -> Sequence[StreamItem]:
        """The items of a message, the one that carries the others first. Raises InvalidRequestError when one of the others carries some
        as well, or when there are too many."""
        if message.takes_more:
            self._max_replies = MAX_REPLIES
        if not message.more:
            return (message,)
        if len(message.more) >= MAX_ITEMS:
            raise InvalidRequestError(f"a message has {1 + len(message.more)} items, at most {MAX_ITEMS} are taken")
        if any(item.more for item in message.more):
            raise InvalidRequestError("an item in the field more has items of its own there")
        return (message, *message.more)

    def pack(self, replies: list[ranker_pb2.ScoreStreamResponse]) -> ranker_pb2.ScoreStreamResponse:
        """Take the first replies out of the list and return them as one message."""
        first, count = replies[0], 1
        first.takes_more = True
        size = first.ByteSize()
        while count < min(self._max_replies, len(replies)) and (size := size + replies[count].ByteSize()) <= REPLY_BYTES:
            count += 1
        first.more.extend(replies[1:count])
        del replies[:count]
        return first
