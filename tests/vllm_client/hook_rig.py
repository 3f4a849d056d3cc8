"""What the tests of a started hook share: its clock, a request and its priority, the wait for what no event tells of."""

import asyncio
from collections.abc import Callable

from scripted_ranker import TIMEOUT_S, item_reply

from pars.v1 import ranker_pb2
from vllm_client.hook.asked import Asked
from vllm_client.hook.decision import Decision
from vllm_client.hook.scoring import PriorityHook

ARRIVAL_MS = 1_700_000_000_000.75
NOW_MS = 1_800_000_000_000.0
WINDOW_MS = 40_000
NEUTRAL = 1_700_000_000_000 + WINDOW_MS // 2
ASKED = Asked(texts=("x" * 25,), prompt_chars=25)  # The scripted ranker's quantile: 0.25.
SCORED = 1_700_000_000_000 + WINDOW_MS // 4


class Clock:
    """Stands still unless moved, so that no breaker opens or closes by the machine's slowness."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class ToldBacklog:
    """In place of a hook's Backlog: says 30 s to everybody, and writes down what it was told."""

    rooms: list[int | None]
    arrivals: list[tuple[int, int]]

    def __init__(self, room: int | None) -> None:
        self.rooms.append(room)

    def arrived(self, before: int, entering: int, now_s: float) -> float:
        self.arrivals.append((before, entering))
        return 30_000.0

    def of(self, in_flight: int) -> float:
        return 0.0


GROWN_MS = 120_000 // 10 - 40_000
"""Delay of a quantile of 0.1 with such a backlog: a tenth of the window, and half of the 80 s off that it grew by."""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)


async def decide(hook: PriorityHook, asked: Asked = ASKED) -> Decision:
    return await hook.decide(asked, ARRIVAL_MS)


def assert_nothing_left(hook: PriorityHook) -> None:
    link = hook._link
    assert link._asks_out == 0
    assert not hook._breaker._trial_out
    if link._stream is not None:
        assert not link._stream._waiting
        assert not link._stream._unsent


def never(item: ranker_pb2.ScoreStreamRequest) -> None:
    """An `answer_item` of a sidecar that is silent."""
    return


def nonsense(field: str, value: float) -> Callable[[ranker_pb2.ScoreStreamRequest], ranker_pb2.ScoreStreamResponse]:
    """An `answer_item` whose score is sane but for this field."""

    def answer(item: ranker_pb2.ScoreStreamRequest) -> ranker_pb2.ScoreStreamResponse:
        reply = item_reply(item)
        setattr(reply.response.scores[0], field, value)
        return reply

    return answer
