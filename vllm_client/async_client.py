"""AsyncRankerClient: the sidecar from asyncio code."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from pars.v1 import ranker_pb2
from vllm_client import replies, requests
from vllm_client.channel import async_channel, ranker_stub
from vllm_client.config import ClientConfig
from vllm_client.credentials import Token
from vllm_client.errors import UnavailableError, error_from_rpc
from vllm_client.scores import ComparedBatch, ScoredBatch, ServedBundle, Tier
from vllm_client.stream import ScoreStream

Reply = TypeVar("Reply", bound=Message)


class AsyncRankerClient:
    """RankerClient with `await`: same methods, same errors. Make it, use it and close it inside one running event loop.

    Cancelling a call cancels it at the server too. `channel` replaces the one that `config` describes and is the caller's to
    close; the config's token goes out on it too.
    """

    def __init__(self, config: ClientConfig | None = None, *, channel: grpc.aio.Channel | None = None) -> None:
        asyncio.get_running_loop()  # Raises here and clearly, where grpc would quietly tie the channel to another loop.
        self.config = config or ClientConfig()
        self._token = Token(self.config.token_file)
        self._own_channel: grpc.aio.Channel | None = None
        if channel is None:
            channel = self._own_channel = async_channel(self.config)
        self._stub = ranker_stub(channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel. Calls in flight, and later ones, raise UnavailableError. Closing twice is harmless."""
        if self._own_channel is not None:
            await self._own_channel.close(grace=None)

    async def score(self, prompts: Sequence[str], *, tier: Tier = Tier.ANY, timeout_ms: float | None = None) -> ScoredBatch:
        """Score one batch, in order. `timeout_ms` replaces the config's `deadline_ms` for this call."""
        request = requests.score_request(prompts, tier, self.config.ranker)
        reply: ranker_pb2.ScoreResponse = await self._call(self._stub.Score, request, timeout_ms)
        return replies.scored_batch(reply, len(prompts), tier)

    async def score_all(self, prompts: Sequence[str], *, tier: Tier = Tier.ANY, timeout_ms: float | None = None) -> ScoredBatch:
        """Score a list of any length, in order, in as many calls as the server's limit asks for. As in RankerClient.

        One after the other: the server fills its batches from one call, and several would only wait in its queue.
        """
        bundle = await self.get_bundle(timeout_ms=timeout_ms)
        runs = requests.split(prompts, bundle.max_prompts_per_call)
        batches = [await self.score(run, tier=tier, timeout_ms=timeout_ms) for run in runs]
        return replies.joined(batches, bundle.manifest.bundle_id)

    async def compare(
        self, pairs: Sequence[tuple[str, str]], *, tier: Tier = Tier.ANY, timeout_ms: float | None = None
    ) -> ComparedBatch:
        """Say for each pair (a, b) of prompts which will have the longer response, in order."""
        request = requests.compare_request(pairs, tier, self.config.ranker)
        reply: ranker_pb2.CompareResponse = await self._call(self._stub.Compare, request, timeout_ms)
        return replies.compared_batch(reply, len(pairs), tier)

    async def get_bundle(self, *, timeout_ms: float | None = None) -> ServedBundle:
        """Ask what the server scores with."""
        request = ranker_pb2.GetBundleRequest(ranker=self.config.ranker)
        reply: ranker_pb2.GetBundleResponse = await self._call(self._stub.GetBundle, request, timeout_ms)
        return replies.served_bundle(reply)

    def stream(self) -> ScoreStream:
        """Return a stream for many small concurrent calls; open it with `async with`. See stream.py."""

        def open_stream(**options: Any) -> Any:
            return self._stub.ScoreStream(metadata=self._token.metadata(), **options)

        return ScoreStream(open_stream, self.config)

    async def _call(self, method: Callable[..., Awaitable[Reply]], request: Message, timeout_ms: float | None) -> Reply:
        timeout_s = self.config.timeout_ms(timeout_ms) / 1000
        try:
            return await method(request, timeout=timeout_s, metadata=self._token.metadata(), wait_for_ready=False)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except grpc.aio.UsageError as error:
            raise UnavailableError("the client is closed") from error
        except asyncio.CancelledError as error:
            # Closing a channel cancels its calls. To whoever awaits one this must not look as if its own task were cancelled.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise UnavailableError("the client was closed during the call") from error
