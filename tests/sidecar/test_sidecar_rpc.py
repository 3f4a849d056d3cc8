"""Every RPC over a real socket, on a bundle whose scores are known: answers, edge inputs, status codes as the proto promises."""

import asyncio
from collections.abc import Callable

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sidecar_failing_models import raises_foreign_error
from sidecar_rig import WAIT_S, Rig
from sidecar_served import MAX_MESSAGE_BYTES, MAX_PROMPTS, Served, StartServed, status_of
from sidecar_tiny import MAX_TOKENS, expected_score

from pars.v1 import ranker_pb2
from sidecar.health import LIFECYCLE, ranker_component
from sidecar.servicer import INTERNAL_MESSAGE

MakeRig = Callable[..., Rig]
Code = grpc.StatusCode

BAD_UTF8 = b"\x0a\x02\xff\xfe"
"""Field 1, two bytes that are not UTF-8: a ScoreRequest with an undecodable prompt."""


async def score(served: Served, *prompts: str, tier: int = 0) -> ranker_pb2.ScoreResponse:
    return await served.stub.Score(ranker_pb2.ScoreRequest(prompts=prompts, tier=tier), timeout=WAIT_S)


class TestScore:
    async def test_prompts_come_back_scored_and_calibrated_in_order(self, served: Served) -> None:
        reply = await score(served, "write long", "short", "very very long")
        assert [answer.score for answer in reply.scores] == [2.125, -1.0, 2.5]
        first = reply.scores[0]
        assert first.quantile == pytest.approx(0.5 + 0.5 * 2.125 / 4)
        assert first.expected_tokens == pytest.approx(100 + 400 * 2.125 / 4)
        assert first.expected_tokens_p90 == pytest.approx(300 + 600 * 2.125 / 4)
        assert (first.prompt_tokens, first.truncated, first.tier) == (4, False, ranker_pb2.TIER_ENCODER)
        assert reply.bundle_id == served.engine.rankers.get("").ranker.manifest.bundle_id
        assert reply.timing.tokenize_time_ns > 0
        assert reply.timing.infer_time_ns > 0

    async def test_the_ngram_tier_is_flagged(self, served: Served) -> None:
        reply = await score(served, "write very long", tier=ranker_pb2.TIER_NGRAM)
        golden = served.engine.rankers.get("").ranker.manifest.golden_prompts[0]
        assert reply.scores[0].tier == ranker_pb2.TIER_NGRAM
        assert reply.scores[0].score == pytest.approx(golden.ngram_score)

    @pytest.mark.parametrize(
        "prompt",
        [
            "",
            " \t\r\n ",
            "\0",
            "long\0long",
            "🦜🦜🦜",
            "שלום עולם",
            "e\u0301 é",
            "\u202eabc\u2066",
            "\U0010ffff\ufffe",
            "long\n" * 3,
        ],
        ids=[
            "empty",
            "whitespace",
            "NUL",
            "NUL inside",
            "emoji",
            "right to left",
            "combining",
            "bidi marks",
            "nonchars",
            "lines",
        ],
    )
    async def test_any_unicode_text_is_a_prompt(self, served: Served, prompt: str) -> None:
        (answer,) = (await score(served, prompt)).scores
        assert answer.score == expected_score(prompt)
        assert not answer.truncated

    async def test_a_prompt_of_one_megabyte_is_cut_and_flagged(self, served: Served) -> None:
        huge, small = (await score(served, "long " * 200_000, "long")).scores
        assert huge.truncated
        assert huge.prompt_tokens == MAX_TOKENS
        assert huge.score == 2.0 * (MAX_TOKENS - 2)
        assert (small.score, small.truncated) == (2.0, False)

    @pytest.mark.parametrize(
        ("request_", "message"),
        [
            (ranker_pb2.ScoreRequest(), "no prompts"),
            (ranker_pb2.ScoreRequest(prompts=["x"] * (MAX_PROMPTS + 1)), "9 prompts, at most 8"),
            (ranker_pb2.ScoreRequest(prompts=["x"], tier=3), "tier 3 is unknown"),
        ],
        ids=["no prompts", "too many prompts", "unknown tier"],
    )
    async def test_a_wrong_request_is_an_invalid_argument(
        self, served: Served, request_: ranker_pb2.ScoreRequest, message: str
    ) -> None:
        code, details = await status_of(served.stub.Score(request_))
        assert code is Code.INVALID_ARGUMENT
        assert message in details

    @pytest.mark.parametrize("method", ["Score", "Compare", "GetBundle"])
    async def test_junk_bytes_are_an_invalid_argument(self, served: Served, method: str) -> None:
        code, details = await status_of(served.raw(method, b"\xff\xff\xff\xff"))
        assert code is Code.INVALID_ARGUMENT
        assert "cannot be parsed" in details

    async def test_bad_utf8_is_an_invalid_argument(self, served: Served) -> None:
        assert (await status_of(served.raw("Score", BAD_UTF8)))[0] is Code.INVALID_ARGUMENT
        assert (await score(served, "long")).scores[0].score == 2.0

    async def test_the_message_limit_is_exact(self, served: Served) -> None:
        def request_of(size: int) -> bytes:
            content = ranker_pb2.ScoreRequest(prompts=["x" * (size - 4)]).SerializeToString()
            assert len(content) == size
            return content

        assert (await status_of(served.raw("Score", request_of(MAX_MESSAGE_BYTES))))[0] is Code.OK
        assert (await status_of(served.raw("Score", request_of(MAX_MESSAGE_BYTES + 1))))[0] is Code.RESOURCE_EXHAUSTED

    async def test_a_method_that_is_not_there_is_unimplemented(self, served: Served) -> None:
        assert (await status_of(served.raw("ReportOutcomes", b"")))[0] is Code.UNIMPLEMENTED

    async def test_overload_is_answered_at_once(self, make_rig: MakeRig, start_served: StartServed) -> None:
        rig = make_rig(capacity=1)
        served = await start_served(rig)
        first = asyncio.ensure_future(score(served, "xx"))
        await rig.scorer.started()
        code, details = await status_of(score(served, "xxx"))
        assert code is Code.RESOURCE_EXHAUSTED
        assert "neutral priority" in details
        rig.scorer.run_free()
        assert (await first).scores[0].score == 2.0

    async def test_a_failing_model_is_an_internal_error_and_turns_health_red(
        self, make_rig: MakeRig, start_served: StartServed
    ) -> None:
        rig = make_rig()
        served = await start_served(rig)
        rig.scorer.outcome = raises_foreign_error
        rig.scorer.run_free()
        assert await status_of(score(served, "secret")) == (Code.INTERNAL, "the model failed on this batch")
        assert rig.health == [False]

    async def test_a_bug_of_ours_is_an_internal_error_that_says_nothing(
        self, served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(*arguments: object) -> None:
            raise KeyError("secret")

        monkeypatch.setattr(served.engine, "_answer", broken)
        assert await status_of(score(served, "secret")) == (Code.INTERNAL, INTERNAL_MESSAGE)
        assert "a call failed with KeyError at " in caplog.text
        assert "secret" not in caplog.text

    async def test_a_callers_deadline_frees_its_permit(self, make_rig: MakeRig, start_served: StartServed) -> None:
        rig = make_rig(capacity=1)
        served = await start_served(rig)
        late = served.stub.Score(ranker_pb2.ScoreRequest(prompts=["x"]), timeout=0.2)
        await rig.scorer.started()
        assert (await status_of(late))[0] is Code.DEADLINE_EXCEEDED
        await asyncio.wait_for(rig.permits.all_returned(), WAIT_S)
        rig.scorer.run_free()
        assert (await score(served, "xx")).scores[0].score == 2.0

    async def test_a_caller_that_hangs_up_frees_its_permit(self, make_rig: MakeRig, start_served: StartServed) -> None:
        rig = make_rig(capacity=1)
        served = await start_served(rig)
        leaver = served.stub.Score(ranker_pb2.ScoreRequest(prompts=["x"]))
        await rig.scorer.started()
        leaver.cancel()
        await asyncio.wait_for(rig.permits.all_returned(), WAIT_S)
        rig.scorer.run_free()
        assert (await score(served, "xx")).scores[0].score == 2.0

    async def test_many_concurrent_callers_each_get_their_own(self, served: Served) -> None:
        prompts = [" ".join(["long"] * (n % 7) + ["short"] * (n % 5)) for n in range(60)]
        replies = await asyncio.gather(*(score(served, prompt) for prompt in prompts))
        assert [reply.scores[0].score for reply in replies] == [expected_score(prompt) for prompt in prompts]


class TestCompare:
    async def test_pairs_are_compared_by_score(self, served: Served) -> None:
        pairs = [("long", "short"), ("short", "long"), ("long short", "short long")]
        request = ranker_pb2.CompareRequest(pairs=[ranker_pb2.PromptPair(prompt_a=a, prompt_b=b) for a, b in pairs])
        reply = await served.stub.Compare(request, timeout=WAIT_S)
        longer = [comparison.longer for comparison in reply.comparisons]
        assert longer == [ranker_pb2.LONGER_A, ranker_pb2.LONGER_B, ranker_pb2.LONGER_NEITHER]
        first = reply.comparisons[0]
        assert (first.score_a.score, first.score_b.score) == (2.0, -1.0)
        assert first.expected_tokens_difference == pytest.approx(300 - 55)
        assert reply.bundle_id == served.engine.rankers.get("").ranker.manifest.bundle_id
        assert reply.timing.infer_time_ns > 0

    @pytest.mark.parametrize("pairs", [0, MAX_PROMPTS // 2 + 1], ids=["no pairs", "too many pairs"])
    async def test_a_wrong_number_of_pairs_is_an_invalid_argument(self, served: Served, pairs: int) -> None:
        request = ranker_pb2.CompareRequest(pairs=[ranker_pb2.PromptPair()] * pairs)
        code, details = await status_of(served.stub.Compare(request))
        assert code is Code.INVALID_ARGUMENT
        assert f"{pairs} pairs, 1 to 4" in details

    async def test_the_largest_number_of_pairs_and_the_ngram_tier(self, served: Served) -> None:
        request = ranker_pb2.CompareRequest(pairs=[ranker_pb2.PromptPair()] * (MAX_PROMPTS // 2), tier=ranker_pb2.TIER_NGRAM)
        reply = await served.stub.Compare(request, timeout=WAIT_S)
        assert {comparison.longer for comparison in reply.comparisons} == {ranker_pb2.LONGER_NEITHER}


async def test_get_bundle_describes_what_scores(served: Served) -> None:
    reply = await served.stub.GetBundle(ranker_pb2.GetBundleRequest(), timeout=WAIT_S)
    assert reply.manifest == served.engine.rankers.get("").ranker.manifest
    assert reply.execution_provider == "CPUExecutionProvider"
    assert reply.max_prompts_per_call == MAX_PROMPTS


class TestHealth:
    @pytest.mark.parametrize("service", ["", "pars.v1.RankerService", "ranker/default"])
    async def test_the_whole_and_the_component_follow_it(self, served: Served, service: str) -> None:
        request = health_pb2.HealthCheckRequest(service=service)
        watch = served.health_stub.Watch(request)
        seen = [(await watch.read()).status]
        for well in (False, True):
            served.health.set(ranker_component("default"), well)
            seen.append((await asyncio.wait_for(watch.read(), WAIT_S)).status)
            assert (await served.health_stub.Check(request, timeout=WAIT_S)).status == seen[-1]
        status = health_pb2.HealthCheckResponse
        assert seen == [status.SERVING, status.NOT_SERVING, status.SERVING]
        watch.cancel()

    async def test_one_component_does_not_follow_another(self, served: Served) -> None:
        served.health.set(ranker_component("default"), False)
        statuses = []
        for service in ("", ranker_component("default"), LIFECYCLE):
            request = health_pb2.HealthCheckRequest(service=service)
            statuses.append((await served.health_stub.Check(request, timeout=WAIT_S)).status)
        status = health_pb2.HealthCheckResponse
        assert statuses == [status.NOT_SERVING, status.NOT_SERVING, status.SERVING]

    async def test_a_watch_sees_the_stop_and_ends(self, served: Served) -> None:
        watch = served.health_stub.Watch(health_pb2.HealthCheckRequest())
        seen = [(await watch.read()).status]
        stop = asyncio.ensure_future(served.stop())
        while (response := await asyncio.wait_for(watch.read(), WAIT_S)) is not grpc.aio.EOF:
            seen.append(response.status)
        await asyncio.wait_for(stop, WAIT_S)
        assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]

    async def test_an_unknown_service_is_not_found(self, served: Served) -> None:
        request = health_pb2.HealthCheckRequest(service="other")
        assert (await status_of(served.health_stub.Check(request)))[0] is Code.NOT_FOUND
        watch = served.health_stub.Watch(request)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


async def test_reflection_lists_the_services_and_their_file(served: Served) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="pars.v1.RankerService"),
    ]
    listed, file = [reply async for reply in stub.ServerReflectionInfo(iter(asked), timeout=WAIT_S)]
    assert {service.name for service in listed.list_services_response.service} >= {
        "pars.v1.RankerService",
        "grpc.health.v1.Health",
    }
    names = {
        descriptor_pb2.FileDescriptorProto.FromString(content).name
        for content in file.file_descriptor_response.file_descriptor_proto
    }
    assert "pars/v1/ranker.proto" in names
