"""Every RPC with whatever a client can send: one answer, with the status that ranker.proto promises for that input, and nothing left.

What is promised is told a second time here, in `promised`, and not asked of the server. One server in a thread of its own answers
all examples; after each it must still answer, and must hold nothing.
"""

import asyncio
import contextlib
import math
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sidecar_rig import WAIT_S
from sidecar_served import MAX_PROMPTS, SERVICE, Served
from sidecar_tiny import MAX_TOKENS

from pars.v1 import ranker_pb2
from sidecar.health import LIFECYCLE, ranker_component
from sidecar.ranker import Ranker

Code = grpc.StatusCode
T = TypeVar("T")

MARK = "xyzzy-7c1f"
"""In prompts. No word of ours has it, so a message that does quotes a prompt."""

AMPLE_S = 5.0
"""With this much time, or without a deadline, lateness is no excuse."""

TIERS = {ranker_pb2.TIER_UNSPECIFIED, ranker_pb2.TIER_ENCODER, ranker_pb2.TIER_NGRAM}
RANKERS = {"", "default"}
INVALID, LATE = {Code.INVALID_ARGUMENT}, {Code.DEADLINE_EXCEEDED}

EXAMPLES = settings(max_examples=150, deadline=None)
MANY_EXAMPLES = settings(max_examples=300, deadline=None)


def promised(request: bytes | Message, timeout_s: float | None = None) -> set[grpc.StatusCode]:
    """The statuses that ranker.proto allows for a Score, Compare or GetBundle request. Unreadable ones come as bytes."""
    late = LATE if timeout_s is not None and timeout_s < AMPLE_S else set()
    if isinstance(request, bytes) or request.ranker not in RANKERS:  # type: ignore[attr-defined]
        return INVALID | late
    if isinstance(request, ranker_pb2.GetBundleRequest):
        return {Code.OK} | late
    if isinstance(request, ranker_pb2.CompareRequest):
        wrong = not 1 <= len(request.pairs) <= MAX_PROMPTS // 2
    else:
        wrong = not 1 <= len(request.prompts) <= MAX_PROMPTS  # type: ignore[attr-defined]
    if wrong or request.tier not in TIERS:  # type: ignore[attr-defined]
        return INVALID | late
    # Only a call that insists on the encoder is refused for want of time; any other has the n-gram scorer.
    refused = {Code.RESOURCE_EXHAUSTED} if late and request.tier == ranker_pb2.TIER_ENCODER else set()  # type: ignore[attr-defined]
    return {Code.OK} | late | refused


def parsed(kind: type[Message], content: bytes) -> Message | bytes:
    """The message, or the bytes as they are when they are none."""
    try:
        return kind.FromString(content)
    except DecodeError:
        return content


# --- what clients send ---

TEXTS = st.one_of(
    st.just(""),
    st.text(max_size=40),
    st.text(max_size=10).map(lambda text: text + MARK),
    st.text(alphabet=st.characters(categories=["Cc", "Cf", "Zs", "Zl", "Zp"]), max_size=20),
    st.text(alphabet="אבגدهو🦜👩‍💻\u202e\u0301\0", max_size=20),
    st.sampled_from(["long", "short", "very long", "write \0 long", "e\u0301 long", "long " * 40]),
    st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=5), st.integers(1, 20_000)),
)
NUMBERS = st.one_of(st.integers(0, 3), st.integers(-(2**31), 2**31 - 1))
RANKER_NAMES = st.one_of(st.sampled_from(["", "", "", "default"]), st.text(max_size=20))
TIMEOUTS_S = st.one_of(
    st.none(), st.just(AMPLE_S), st.floats(-1, 0.05), st.floats(AMPLE_S, 1e5), st.sampled_from([0.0, 1e-9, 1e8])
)

SCORE_REQUESTS = st.builds(
    ranker_pb2.ScoreRequest, prompts=st.lists(TEXTS, max_size=MAX_PROMPTS + 2), tier=NUMBERS, ranker=RANKER_NAMES
)
GOOD_SCORE_REQUESTS = st.builds(
    ranker_pb2.ScoreRequest, prompts=st.lists(TEXTS, min_size=1, max_size=MAX_PROMPTS), tier=st.integers(1, 2)
)
PAIRS = st.builds(ranker_pb2.PromptPair, prompt_a=TEXTS, prompt_b=TEXTS)
COMPARE_REQUESTS = st.builds(
    ranker_pb2.CompareRequest, pairs=st.lists(PAIRS, max_size=MAX_PROMPTS // 2 + 2), tier=NUMBERS, ranker=RANKER_NAMES
)
ITEMS = st.builds(
    ranker_pb2.ScoreStreamRequest,
    id=st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1)),
    request=st.one_of(st.none(), SCORE_REQUESTS),
    timeout_ms=st.one_of(st.just(0), st.integers(0, 20), st.integers(5_000, 2**32 - 1)),
)


@st.composite
def broken(draw: st.DrawFn, messages: st.SearchStrategy[Any]) -> bytes:
    """Bytes that are a message, or nearly one: cut short, doubled, with a field nobody knows, with bytes changed; or none at all."""
    content: bytes = draw(messages).SerializeToString()
    place = draw(st.integers(0, len(content)))
    return draw(
        st.sampled_from(
            (
                content,
                content[:place],
                content + content,
                content + b"\xfa\x07\x02ab\xf8\x07\x01",
                content[:place] + draw(st.binary(min_size=1, max_size=3)) + content[place + 1 :],
                b"\x0a\x03\xed\xa0\x80" + content,
                draw(st.binary(max_size=50)),
            )
        )
    )


# --- the server they send it to ---


@dataclass
class Hall:
    """A server on a thread of its own, for tests that are no coroutines themselves."""

    loop: asyncio.AbstractEventLoop
    served: Served

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(3 * WAIT_S)

    def still_well(self) -> None:
        """A plain call is answered, and then nothing is held for anybody."""
        self.run(self._still_well())

    async def _still_well(self) -> None:
        reply = await self.served.stub.Score(ranker_pb2.ScoreRequest(prompts=["very long"], tier=1), timeout=WAIT_S)
        assert reply.scores[0].score == 2.25
        async with asyncio.timeout(WAIT_S):
            while held := self._held():  # noqa: ASYNC110 - a caller that has left is noticed when the network says so
                await asyncio.sleep(0.001)
        assert not held

    def _held(self) -> dict[str, int]:
        engine = self.served.engine
        runner = engine.rankers.get("").runner
        held = {
            "encoder permits": engine._encoder_permits.taken,
            "n-gram permits": engine._ngram_permits.taken,
            "characters": engine._encoder_permits.taken_chars + engine._ngram_permits.taken_chars,
            "prompts in the queue": runner.waiting_prompts,
            "unanswered calls": runner.unanswered_calls,
            "text in the lane": engine._tokenizer_lane.backlog_chars + engine._ngram_lane.backlog_chars,
            "items": sum("answer_" in repr(task) for task in asyncio.all_tasks()),
        }
        return {name: count for name, count in held.items() if count}


@pytest.fixture(scope="module")
def hall(tiny_ranker: Ranker) -> Iterator[Hall]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(WAIT_S)

    served = run(Served.start(tiny_ranker))
    try:
        yield Hall(loop, served)
    finally:
        run(served.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()


async def outcome_of(call: Awaitable[T]) -> tuple[grpc.StatusCode, T | None]:
    """The one answer to a call: a status, and a reply exactly when that is OK."""
    try:
        async with asyncio.timeout(2 * WAIT_S):
            return Code.OK, await call
    except grpc.aio.AioRpcError as error:
        failure = error
    assert MARK not in (failure.details() or "")
    return failure.code(), None


async def raw(hall: Hall, method: str, content: bytes, timeout_s: float | None = None) -> tuple[grpc.StatusCode, bytes | None]:
    call: Callable[..., Awaitable[bytes]] = hall.served.channel.unary_unary(SERVICE + method)  # type: ignore[assignment,call-arg]
    return await outcome_of(call(content, timeout=timeout_s))


def check_scores(scores: Sequence[ranker_pb2.PromptScore], tier: int) -> None:
    for score in scores:
        assert math.isfinite(score.score)
        assert 0.0 <= score.quantile <= 1.0
        assert 0.0 <= score.expected_tokens <= score.expected_tokens_p90
        assert score.prompt_tokens <= MAX_TOKENS
        assert score.tier in ({tier} if tier else TIERS - {0})
    assert len({score.tier for score in scores}) == 1


# --- the properties ---


@MANY_EXAMPLES
@given(request_=SCORE_REQUESTS, timeout_s=TIMEOUTS_S)
@example(request_=ranker_pb2.ScoreRequest(prompts=[MARK] * (MAX_PROMPTS + 1)), timeout_s=None)
@example(request_=ranker_pb2.ScoreRequest(prompts=["x"], ranker=MARK), timeout_s=None)
def test_score(hall: Hall, request_: ranker_pb2.ScoreRequest, timeout_s: float | None) -> None:
    code, content = hall.run(raw(hall, "Score", request_.SerializeToString(), timeout_s))
    assert code in promised(request_, timeout_s)
    if content is not None:
        reply = ranker_pb2.ScoreResponse.FromString(content)
        assert len(reply.scores) == len(request_.prompts)
        check_scores(reply.scores, request_.tier)
        assert reply.bundle_id == hall.served.engine.rankers.get("").bundle_id
    hall.still_well()


@EXAMPLES
@given(request_=GOOD_SCORE_REQUESTS)
def test_a_prompt_scores_the_same_alone_and_in_a_batch(hall: Hall, request_: ranker_pb2.ScoreRequest) -> None:
    async def scores(*prompts: str) -> list[ranker_pb2.PromptScore]:
        reply = await hall.served.stub.Score(ranker_pb2.ScoreRequest(prompts=prompts, tier=request_.tier), timeout=WAIT_S)
        return list(reply.scores)

    async def both() -> tuple[list[ranker_pb2.PromptScore], list[ranker_pb2.PromptScore]]:
        together, *alone = await asyncio.gather(scores(*request_.prompts), *(scores(prompt) for prompt in request_.prompts))
        return together, [score for (score,) in alone]

    together, alone = hall.run(both())
    assert together == alone
    hall.still_well()


@EXAMPLES
@given(request_=COMPARE_REQUESTS, timeout_s=TIMEOUTS_S)
@example(request_=ranker_pb2.CompareRequest(pairs=[ranker_pb2.PromptPair(prompt_a=MARK)] * 5), timeout_s=None)
def test_compare(hall: Hall, request_: ranker_pb2.CompareRequest, timeout_s: float | None) -> None:
    code, content = hall.run(raw(hall, "Compare", request_.SerializeToString(), timeout_s))
    assert code in promised(request_, timeout_s)
    if content is not None:
        reply = ranker_pb2.CompareResponse.FromString(content)
        assert len(reply.comparisons) == len(request_.pairs)
        for comparison in reply.comparisons:
            a, b = comparison.score_a, comparison.score_b
            check_scores([a, b], request_.tier)
            assert comparison.longer == (a.score > b.score) + 2 * (a.score < b.score) + 3 * (a.score == b.score)
            assert comparison.expected_tokens_difference == pytest.approx(a.expected_tokens - b.expected_tokens)
        assert reply.bundle_id == hall.served.engine.rankers.get("").bundle_id
    hall.still_well()


@EXAMPLES
@given(ranker=RANKER_NAMES, timeout_s=TIMEOUTS_S)
def test_get_bundle(hall: Hall, ranker: str, timeout_s: float | None) -> None:
    request = ranker_pb2.GetBundleRequest(ranker=ranker)
    code, content = hall.run(raw(hall, "GetBundle", request.SerializeToString(), timeout_s))
    assert code in promised(request, timeout_s)
    if content is not None:
        reply = ranker_pb2.GetBundleResponse.FromString(content)
        assert (reply.ranker, list(reply.rankers), reply.max_prompts_per_call) == ("default", ["default"], MAX_PROMPTS)
    hall.still_well()


@MANY_EXAMPLES
@given(
    sent=st.one_of(
        st.tuples(st.just("Score"), st.just(ranker_pb2.ScoreRequest), broken(SCORE_REQUESTS)),
        st.tuples(st.just("Compare"), st.just(ranker_pb2.CompareRequest), broken(COMPARE_REQUESTS)),
        st.tuples(
            st.just("GetBundle"),
            st.just(ranker_pb2.GetBundleRequest),
            broken(st.builds(ranker_pb2.GetBundleRequest, ranker=RANKER_NAMES)),
        ),
    )
)
def test_any_bytes_as_a_request(hall: Hall, sent: tuple[str, type[Message], bytes]) -> None:
    method, kind, content = sent
    code, _ = hall.run(raw(hall, method, content))
    assert code in promised(parsed(kind, content))
    hall.still_well()


@MANY_EXAMPLES
@given(
    contents=st.lists(st.one_of(ITEMS.map(lambda item: item.SerializeToString()), broken(ITEMS)), max_size=12),
    timeout_s=st.one_of(st.none(), st.just(AMPLE_S), st.floats(0.001, 0.05)),
)
def test_score_stream(hall: Hall, contents: list[bytes], timeout_s: float | None) -> None:
    """Items with repeated ids, wrong ones and unreadable ones in any order: each that was read has one reply, of its own status."""
    items = [parsed(ranker_pb2.ScoreStreamRequest, content) for content in contents]
    unreadable = next((place for place, item in enumerate(items) if isinstance(item, bytes)), None)
    code, replies = stream_outcome(hall, contents, timeout_s)
    late = timeout_s is not None and timeout_s < AMPLE_S
    assert code in {Code.OK if unreadable is None else Code.INVALID_ARGUMENT} | (LATE if late else set())
    read = [item for item in items[:unreadable] if isinstance(item, ranker_pb2.ScoreStreamRequest)]
    allowed: dict[int, set[grpc.StatusCode]] = {}
    for item in read:
        limits_s = [limit for limit in (timeout_s, item.timeout_ms / 1e3) if limit]
        allowed.setdefault(item.id, set()).update(promised(item.request, min(limits_s, default=None)))
    answered, expected = Counter(reply.id for reply in replies), Counter(item.id for item in read)
    assert answered <= expected if code in LATE else answered == expected
    for reply in replies:
        if reply.WhichOneof("outcome") == "error":
            assert MARK not in reply.error.message
            assert reply.error.message
            assert reply.error.code in {one.value[0] for one in allowed[reply.id] - {Code.OK}}
        else:
            assert Code.OK in allowed[reply.id]
            check_scores(reply.response.scores, ranker_pb2.TIER_UNSPECIFIED)
    hall.still_well()


def stream_outcome(
    hall: Hall, contents: Sequence[bytes], timeout_s: float | None
) -> tuple[grpc.StatusCode, list[ranker_pb2.ScoreStreamResponse]]:
    """Send all of it, reading meanwhile; the stream's status and what was read."""
    replies = []
    # Not grpc.aio, which says INTERNAL, "Internal error from Core", of a stream that the server ends while the client still sends.
    with grpc.insecure_channel(hall.served.address) as channel:
        make: Any = channel.stream_stream(
            SERVICE + "ScoreStream", response_deserializer=ranker_pb2.ScoreStreamResponse.FromString
        )
        stream = make(iter(contents), timeout=2 * WAIT_S if timeout_s is None else timeout_s)
        with contextlib.suppress(grpc.RpcError):
            replies.extend(stream)
        assert MARK not in (stream.details() or "")
        return stream.code(), replies


@EXAMPLES
@given(requests=st.lists(st.tuples(SCORE_REQUESTS, st.floats(0, 0.01)), min_size=1, max_size=8))
def test_callers_that_leave_take_nothing_with_them(hall: Hall, requests: list[tuple[ranker_pb2.ScoreRequest, float]]) -> None:
    """Calls at once, each taken back after some milliseconds, in its headers, in the queue, in its batch or after its answer."""

    async def leaving(request: ranker_pb2.ScoreRequest, after_s: float) -> grpc.StatusCode:
        call = hall.served.stub.Score(request)
        await asyncio.sleep(after_s)
        call.cancel()
        return await asyncio.wait_for(call.code(), WAIT_S)

    async def all_leaving() -> list[grpc.StatusCode]:
        return await asyncio.gather(*(leaving(request, after_s) for request, after_s in requests))

    codes = hall.run(all_leaving())
    for (request, _), code in zip(requests, codes, strict=True):
        assert code in promised(request) | {Code.CANCELLED, Code.RESOURCE_EXHAUSTED}
    hall.still_well()


@EXAMPLES
@given(
    service=st.one_of(
        st.sampled_from(["", "pars.v1.RankerService", LIFECYCLE, ranker_component("default")]), st.text(max_size=30)
    )
)
def test_health(hall: Hall, service: str) -> None:
    known = service in {"", "pars.v1.RankerService", LIFECYCLE, ranker_component("default")}
    request = health_pb2.HealthCheckRequest(service=service)

    async def checked() -> tuple[grpc.StatusCode, health_pb2.HealthCheckResponse | None]:
        return await outcome_of(hall.served.health_stub.Check(request, timeout=WAIT_S))

    async def watched() -> int:
        watch = hall.served.health_stub.Watch(request, timeout=WAIT_S)
        first = await watch.read()
        watch.cancel()
        return int(first.status)

    code, reply = hall.run(checked())
    status = health_pb2.HealthCheckResponse
    assert code is (Code.OK if known else Code.NOT_FOUND)
    assert reply is None or reply.status == status.SERVING
    assert hall.run(watched()) == (status.SERVING if known else status.SERVICE_UNKNOWN)
    hall.still_well()
