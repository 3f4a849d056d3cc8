"""Link: one multiplexed stream to the sidecar, kept open in the background, so that no request ever waits for a connection.

Connected means that the sidecar has just scored a prompt on this stream. gRPC does not tell by itself: opening a stream and
writing to it succeed while nobody is there, and asyncio's server sends no headers before its first reply.
"""

import asyncio
import logging
import math
import random
from collections.abc import Sequence

from vllm_client.async_client import AsyncRankerClient
from vllm_client.channel import CONNECT_PATIENCE_MS, async_channel
from vllm_client.errors import OverloadedError, RankerClientError, UnavailableError
from vllm_client.hook.counters import Counters
from vllm_client.hook.faults import FaultLog
from vllm_client.hook.settings import HookSettings
from vllm_client.scores import ScoredBatch
from vllm_client.stream import ScoreStream

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
"""Between two attempts to connect: from the first to the longest, doubling. After an attempt that took, or a connection that
lasted, the longest, it starts over."""

PROBE = "Hello"
"""What a new connection must score before it is used."""

TELL_INTERVAL_S = 60.0
"""Least time between two lines about a lost connection."""


class UnconnectedError(UnavailableError):
    """There is no connection at this moment. Nothing was sent."""


class LinkFullError(OverloadedError):
    """`max_asks` questions are unanswered. Nothing was sent."""


class Link:
    """Made anywhere, started, used and closed inside one event loop. Starting and closing twice is harmless."""

    def __init__(
        self, settings: HookSettings, *, counters: Counters | None = None, logger: logging.Logger | None = None
    ) -> None:
        self._config = settings.client_config()
        self._tier = settings.asked_tier()
        self._counters = counters
        self._log = logger or logging.getLogger("vllm_client")
        self._faults = FaultLog(self._log)
        self._stream: ScoreStream | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._asks_out = 0
        self._told = "nothing"
        self._next_loss_told_s = -math.inf

    @property
    def connected(self) -> bool:
        return self._stream is not None

    @property
    def asked(self) -> bool:
        """Whether anybody waits for an answer."""
        return self._asks_out > 0

    @property
    def full(self) -> bool:
        """Whether `max_asks` questions are unanswered."""
        return self._asks_out >= self._config.max_in_flight

    def start(self) -> None:
        """Begin to connect, in the background. Needs a running loop."""
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep_connected(), name="pars-hook-link")

    async def close(self) -> None:
        """Stop. Questions in flight raise UnavailableError, later ones UnconnectedError."""
        if self._keeper is None or self._keeper.done():
            return
        if not self._keeper.cancelling():  # A second cancel would cut the cleaning-up short.
            self._keeper.cancel()
        await asyncio.wait({self._keeper})

    async def ask(self, texts: Sequence[str], deadline_ms: float | None = None) -> ScoredBatch:
        """Score `texts` within the deadline, which is that of the settings unless given.

        Raises UnconnectedError or LinkFullError at once, else what ScoreStream.score raises.
        """
        stream = self._stream
        if stream is None:
            raise UnconnectedError("no connection at this moment")
        if self.full:
            raise LinkFullError(f"{self._asks_out} questions are unanswered")
        self._asks_out += 1
        try:
            return await stream.score(texts, tier=self._tier, timeout_ms=deadline_ms)
        finally:
            self._asks_out -= 1

    @property
    def silent_s(self) -> float:
        """For how long somebody has waited and nothing at all has come."""
        return 0.0 if self._stream is None else self._stream.silent_s

    def let_go(self) -> None:
        """Let nobody wait any longer for an answer that is out."""
        if self._stream is not None:
            self._stream.let_go()

    def recycle(self) -> None:
        """Drop a connection from which nothing comes any more, and make another.

        A frozen process keeps its connections while its successor may listen at the same address. Where replies still come, if
        late, the connection is not to blame and stays.
        """
        if self._stream is not None and self._stream.unheard > 1:
            self._stream.give_up("nothing came back")
            self._offer(None)

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = loop.time()
            try:
                why = await self._one_connection()
            except RankerClientError as error:
                # Of connecting: no request's text has been sent yet, so none can be quoted.
                why = f"{type(error).__name__}: {error}"
            except Exception as error:
                self._faults.tell(error)
                why = "a fault of the hook"
            self._tell_lost(why)
            if loop.time() - began_s >= LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # Workers that lost one sidecar do not return in step.
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _one_connection(self) -> str:
        """Connect, offer the stream until it ends, and return why it did. Raises RankerClientError when it cannot connect."""
        # Channels to one address share their connections, dead ones and back-off included, unless told not to.
        # A new channel each time also reads certificates and token anew.
        async with async_channel(self._config, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            client = AsyncRankerClient(self._config, channel=channel)
            # Not the stream's first item alone: a unary call says why nobody is there, and a stream that fails to connect leaks
            # a quarter of a kilobyte in grpcio 1.85.
            bundle = await client.get_bundle(timeout_ms=CONNECT_PATIENCE_MS)
            async with client.stream() as stream:
                await stream.score([PROBE], tier=self._tier, timeout_ms=CONNECT_PATIENCE_MS)
                self._tell_connected(bundle.manifest.bundle_id)
                self._offer(stream)
                try:
                    why = await stream.ended()
                finally:
                    self._offer(None)
                # The code alone. The message after it is the server's and may be about a request.
                return why.partition(":")[0]

    def _offer(self, stream: ScoreStream | None) -> None:
        self._stream = stream
        if self._counters is not None:
            self._counters.set_gauge("connected", int(stream is not None))

    def _tell_connected(self, bundle_id: str) -> None:
        if self._told != "connected":
            self._told = "connected"
            self._log.info("PARS hook: connected to the sidecar at %s, bundle %s", self._config.address, bundle_id)

    def _tell_lost(self, why: str) -> None:
        # Once for each outage and each reason of it, and not again at once when the connection flaps.
        now_s = asyncio.get_running_loop().time()
        told = f"lost: {why.partition(':')[0]}"
        if self._told == told or now_s < self._next_loss_told_s:
            return
        self._told = told
        self._next_loss_told_s = now_s + TELL_INTERVAL_S
        self._log.warning(
            "PARS hook: no connection to the sidecar at %s, requests go unscored until there is one: %s",
            self._config.address,
            why,
        )
