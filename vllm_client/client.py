"""RankerClient: the sidecar from ordinary, blocking code."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.message import Message

from pars.v1 import ranker_pb2
from vllm_client import replies, requests
from vllm_client.channel import ranker_stub, sync_channel
from vllm_client.config import ClientConfig
from vllm_client.credentials import Token
from vllm_client.errors import UnavailableError, error_from_rpc
from vllm_client.scores import ComparedBatch, ScoredBatch, ServedBundle, Tier

Reply = TypeVar("Reply", bound=Message)

POLL_S = 0.1
"""Seconds between two looks at a sidecar that is not there yet. A shorter pause than the channel's own reconnect helps nobody."""


class RankerClient:
    """One channel to one sidecar, for the life of the client. Safe to share between threads.

    Every method has a deadline and raises a RankerClientError (errors.py); nothing is retried. Connecting starts with the first
    call, and a call to a sidecar that is not there fails at once instead of waiting for it.

    Making one raises CredentialsError when the files of its config cannot be used. `channel` replaces the one that `config`
    describes and is the caller's to close; the config's token goes out on it too.
    """

    def __init__(self, config: ClientConfig | None = None, *, channel: grpc.Channel | None = None) -> None:
        self.config = config or ClientConfig()
        self._token = Token(self.config.token_file)
        self._own_channel: grpc.Channel | None = None
        if channel is None:
            channel = self._own_channel = sync_channel(self.config)
        self._stub = ranker_stub(channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel. Calls in flight, and later ones, raise UnavailableError. Closing twice is harmless."""
        if self._own_channel is not None:
            self._own_channel.close()

    def score(self, prompts: Sequence[str], *, tier: Tier = Tier.ANY, timeout_ms: float | None = None) -> ScoredBatch:
        """Score one batch, in order. `timeout_ms` replaces the config's `deadline_ms` for this call."""
        request = requests.score_request(prompts, tier, self.config.ranker)
        reply: ranker_pb2.ScoreResponse = self._call(self._stub.Score, request, timeout_ms)
        return replies.scored_batch(reply, len(prompts), tier)

    def score_all(self, prompts: Sequence[str], *, tier: Tier = Tier.ANY, timeout_ms: float | None = None) -> ScoredBatch:
        """Score a list of any length, in order, in as many calls as the server's limit asks for, one after the other.

        `timeout_ms` holds for each call. A full call of 256 prompts takes a CPU a second or so: give it time. An empty list is
        fine. The first error ends it; BadReplyError also when the server's bundle changes on the way.
        """
        bundle = self.get_bundle(timeout_ms=timeout_ms)
        runs = requests.split(prompts, bundle.max_prompts_per_call)
        batches = (self.score(run, tier=tier, timeout_ms=timeout_ms) for run in runs)
        return replies.joined(batches, bundle.manifest.bundle_id)

    def compare(
        self, pairs: Sequence[tuple[str, str]], *, tier: Tier = Tier.ANY, timeout_ms: float | None = None
    ) -> ComparedBatch:
        """Say for each pair (a, b) of prompts which will have the longer response, in order."""
        request = requests.compare_request(pairs, tier, self.config.ranker)
        reply: ranker_pb2.CompareResponse = self._call(self._stub.Compare, request, timeout_ms)
        return replies.compared_batch(reply, len(pairs), tier)

    def get_bundle(self, *, timeout_ms: float | None = None) -> ServedBundle:
        """Ask what the server scores with."""
        reply: ranker_pb2.GetBundleResponse = self._call(
            self._stub.GetBundle, ranker_pb2.GetBundleRequest(ranker=self.config.ranker), timeout_ms
        )
        return replies.served_bundle(reply)

    def wait_until_serving(self, timeout_s: float) -> None:
        """Return as soon as the sidecar answers; raise the last UnavailableError when it does not within `timeout_s` seconds.

        For programs that start a sidecar themselves. Anything but UnavailableError is raised at once.
        """
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                self.get_bundle()
                return
            except UnavailableError:
                if time.monotonic() >= give_up:
                    raise
            time.sleep(POLL_S)

    def _call(self, method: Callable[..., Reply], request: Message, timeout_ms: float | None) -> Reply:
        timeout_s = self.config.timeout_ms(timeout_ms) / 1000
        try:
            return method(request, timeout=timeout_s, metadata=self._token.metadata(), wait_for_ready=False)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error
        except ValueError as error:
            # Only this way does grpc say that the channel was closed, by us or by whoever handed it in.
            raise UnavailableError("the client is closed") from error
