"""One call of a peer over HTTP, and what can be wrong with its answer."""

import json
import math
from collections.abc import Sequence

import aiohttp

from benchmarks.peers.registry import Peer


class HttpStatusError(Exception):
    """The peer answered with another status than 200."""


class WrongAnswerError(Exception):
    """The peer answered something that is not one finite score for each prompt."""


FAILURES = (HttpStatusError, WrongAnswerError, aiohttp.ClientError, TimeoutError)
"""All that `ask` raises. TimeoutError: no answer within the session's own timeout."""


def session(timeout_s: float, connections: int = 1) -> aiohttp.ClientSession:
    """A client whose connections are kept open between calls. connections: at most so many; 0: as many as there are calls."""
    connector = aiohttp.TCPConnector(limit=connections)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=timeout_s))


async def ask(client: aiohttp.ClientSession, url: str, peer: Peer, prompts: Sequence[str]) -> list[float]:
    """The peer's scores. url: without the path. Raises one of FAILURES."""
    route = peer.route(len(prompts))
    async with client.post(url + route.path, json=route.body(prompts)) as response:
        content = await response.read()
        if response.status != 200:
            raise HttpStatusError(f"{peer.name} answered {response.status}: {content[:200]!r}")
    try:
        scores = [float(score) for score in route.scores(json.loads(content))]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise WrongAnswerError(f"{peer.name} answered {content[:200]!r}") from error
    if len(scores) != len(prompts) or not all(map(math.isfinite, scores)):
        raise WrongAnswerError(
            f"{peer.name} answered {len(scores)} scores to {len(prompts)} prompts, or one that is not finite"
        )
    return scores
