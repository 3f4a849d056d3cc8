"""Servers that the hook does not fit: without priority scheduling, with the equal policy for a control, with settings that are wrong."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from generating import completion, finishing_order, one_by_one
from http_wire import Reply
from quantile_ranker import QuantileRanker, prompt
from rude_requests import CASES, essence, reply_to
from shared_servers import EQUAL, FCFS, MIDDLEWARE, PRIORITY, Fleet

PROBE = ("Hello",)
"""What the hook asks on its own account when it connects."""
LONG_FIRST = {str(number): completion(prompt(1 - number / 10), 5 + 10 * (number % 3)) for number in range(8)}
"""A hook that orders would turn them round."""


async def test_without_priority_scheduling_the_hook_says_so_once_and_does_nothing(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate a server without --scheduling-policy priority 2. queue requests, the longest first 3. let go: they finish as they
    came 4. the sidecar never saw one 5. the log says loudly, and once, that the hook does nothing."""
    server = fleet(FCFS)
    before = await server.metrics()
    assert await finishing_order(server, one_by_one(LONG_FIRST)) == list(LONG_FIRST)
    assert set(ranker.questions) <= {PROBE}
    assert (await server.metrics()).outcomes_since(before) == {"fcfs_engine": len(LONG_FIRST) + 1}
    notices = [line for line in server.log().splitlines() if "DOES NOTHING" in line]
    assert len(notices) == 1
    assert "ERROR" in notices[0]
    assert "--scheduling-policy priority" in notices[0]


@pytest.mark.parametrize(
    "name", ["a completion", "a streamed chat", "a message", "half a body", "2 MB in pieces", "a wrong key"]
)
async def test_without_priority_scheduling_no_answer_changes(
    fleet: Fleet, plain_reply: Callable[[str], Awaitable[Reply]], name: str
) -> None:
    """1. ask a server without the hook 2. ask the one whose hook does nothing 3. the answers agree."""
    expected = await plain_reply(name)
    assert essence(await reply_to(fleet(FCFS), CASES[name])) == essence(expected)


async def test_equal_policy_is_first_come_first_served(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate a server with PARS_HOOK_POLICY=equal 2. queue requests, the longest first 3. let go: they finish exactly as they
    came 4. nothing was asked."""
    server = fleet(EQUAL)
    before = await server.metrics()
    assert await finishing_order(server, one_by_one(LONG_FIRST)) == list(LONG_FIRST)
    assert set(ranker.questions) <= {PROBE}
    assert (await server.metrics()).outcomes_since(before) == {"equal_policy": len(LONG_FIRST) + 1}


@pytest.mark.parametrize(("variable", "value"), [("PARS_HOOK_POLICY", "nonsense")], ids=["a policy that there is not"])
def test_a_wrong_setting_keeps_the_server_from_starting(serve: Any, variable: str, value: str) -> None:
    """1. start a server with a wrong setting 2. it ends by itself, with an exit code that is not 0 3. its log names setting and value
    4. nothing of it is left."""
    with serve(*PRIORITY, *MIDDLEWARE, wait=False, **{variable: value}) as server:
        assert server.exit_code() != 0
        assert [line for line in server.log().splitlines() if "ERROR" in line and "nonsense" in line and "ageing" in line]
