"""Plans for closed batches, made with a real gRPC server whose answers the tests write. Its calls take 4 prompts."""

import logging
import random
import time
from typing import Any

import grpc
import pytest
from scripted_ranker import TIMEOUT_S, ScriptedRanker, bundle_reply, score_reply

from pars.text import MAX_CHARS
from pars.v1 import ranker_pb2
from vllm_client import ClientConfig, RankerClient, Tier
from vllm_client.offline import FAILURES_IN_A_ROW, OfflinePlan, chat_in_order, generate_in_order, offline_plan


@pytest.fixture
def config(ranker: ScriptedRanker) -> ClientConfig:
    return ClientConfig(address=ranker.address)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "s" * 90}, {"role": "user", "content": text}]


def scored_calls(ranker: ScriptedRanker) -> list[list[str]]:
    return [list(request.prompts) for request in ranker.requests if isinstance(request, ranker_pb2.ScoreRequest)]


class FakeLLM:
    """Takes what LLM.generate and LLM.chat take, and answers each prompt with itself and what came with it."""

    def generate(self, prompts, sampling_params=None, *, lora_request=None, priority=None, use_tqdm=True):
        count = len(prompts)
        assert len(priority) == count
        params = sampling_params if isinstance(sampling_params, list) else [sampling_params] * count
        loras = lora_request if isinstance(lora_request, list) else [lora_request] * count
        self.ran = list(prompts)
        return list(zip(prompts, params, loras, [use_tqdm] * count, strict=True))

    def chat(self, messages, sampling_params=None, *, lora_request=None, priority=None, use_tqdm=True):
        return self.generate(messages, sampling_params, lora_request=lora_request, priority=priority, use_tqdm=use_tqdm)


class OldLLM(FakeLLM):
    """Before vLLM 0.32, chat took no priority."""

    def chat(self, messages, sampling_params=None):
        return self.generate(messages, sampling_params, priority=[0] * len(messages))


# The plan.


def test_shortest_first(config: ClientConfig) -> None:
    plan = offline_plan(config, ["x" * 30, "x" * 10, "x" * 20])
    assert plan == OfflinePlan(prompts=["x" * 10, "x" * 20, "x" * 30], priorities=[0, 1, 2], positions=(1, 2, 0), scored=3)


def test_longest_first(config: ClientConfig) -> None:
    plan = offline_plan(config, ["x" * 30, "x" * 10, "x" * 20], order="longest")
    assert plan == OfflinePlan(prompts=["x" * 30, "x" * 20, "x" * 10], priorities=[0, 1, 2], positions=(0, 2, 1), scored=3)


@pytest.mark.parametrize("order", ["shortest", "longest"])
def test_equal_prompts_share_a_priority_and_keep_their_order(config: ClientConfig, order: Any) -> None:
    plan = offline_plan(config, ["aaaa", "bb", "cccc", "dd", "eeee"], order=order)
    assert plan.priorities == ([0, 0, 1, 1, 1] if order == "shortest" else [0, 0, 0, 1, 1])
    assert plan.prompts == (
        ["bb", "dd", "aaaa", "cccc", "eeee"] if order == "shortest" else ["aaaa", "cccc", "eeee", "bb", "dd"]
    )


def test_prompts_of_every_form_are_sorted_and_not_changed(config: ClientConfig) -> None:
    """Those without a text count as middling: quantile 0.5."""
    tokens, ids, large, text, small = {"prompt_token_ids": [1, 2]}, [3, 4], {"prompt": "x" * 60}, "x" * 40, user("x" * 5)
    plan: OfflinePlan[Any] = offline_plan(config, [tokens, large, text, small, ids])
    assert plan.scored == 3
    assert all(one is other for one, other in zip(plan.prompts, [small, text, tokens, ids, large], strict=True))
    assert plan.priorities == [0, 1, 2, 2, 3]


def test_values_go_there_and_outputs_come_back(config: ClientConfig) -> None:
    lengths = list(range(1, 100))
    random.Random(5).shuffle(lengths)
    plan = offline_plan(config, ["x" * length for length in lengths])
    assert plan.arranged(lengths) == sorted(lengths)
    assert plan.restored([len(prompt) for prompt in plan.prompts]) == lengths
    assert all(type(priority) is int for priority in plan.priorities)


def test_lists_of_another_length_are_refused(config: ClientConfig) -> None:
    plan = offline_plan(config, ["a", "b"])
    with pytest.raises(ValueError, match="3 values for 2 prompts"):
        plan.arranged([1, 2, 3])
    with pytest.raises(ValueError, match="1 outputs for 2 prompts"):
        plan.restored(["one"])


def test_nothing_to_plan_asks_nobody(ranker: ScriptedRanker, config: ClientConfig, caplog: pytest.LogCaptureFixture) -> None:
    assert offline_plan(config, []) == OfflinePlan(prompts=[], priorities=[], positions=(), scored=0)
    assert not ranker.requests
    assert not caplog.records


@pytest.mark.parametrize(
    "single",
    ["one prompt", b"bytes", {"prompt": "one"}, [1, 2, 3], user("one conversation")],
    ids=["text", "bytes", "dict", "token ids", "conversation"],
)
def test_a_single_prompt_is_refused(config: ClientConfig, single: Any) -> None:
    with pytest.raises(TypeError, match="a list of prompts or conversations is wanted"):
        offline_plan(config, single)


@pytest.mark.parametrize("wrong", [{"order": "fastest"}, {"timeout_ms": 0}, {"total_timeout_ms": float("nan")}])
def test_wrong_arguments_are_refused(config: ClientConfig, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        offline_plan(config, ["a"], **wrong)


# What is asked.


def test_calls_have_the_size_the_server_takes(ranker: ScriptedRanker, config: ClientConfig) -> None:
    offline_plan(config, [[1, 2], *"abcdefghi"], tier=Tier.NGRAM)
    assert scored_calls(ranker) == [["a", "b", "c", "d"], ["e", "f", "g", "h"], ["i"]]
    assert {request.tier for request in ranker.requests if isinstance(request, ranker_pb2.ScoreRequest)} == {Tier.NGRAM}


def test_tens_of_thousands_in_seconds(ranker: ScriptedRanker, config: ClientConfig) -> None:
    """With a sidecar that answers at once: what is ours must not be what takes long."""

    def roomy() -> ranker_pb2.GetBundleResponse:
        bundle = bundle_reply()
        bundle.max_prompts_per_call = 256
        return bundle

    ranker.answer_bundle = roomy
    prompts = ["x" * (number % 97 + 1) for number in range(20_000)]
    began_s = time.monotonic()
    plan = offline_plan(config, prompts)
    assert time.monotonic() - began_s < TIMEOUT_S
    assert plan.scored == 20_000
    assert len(scored_calls(ranker)) == 79
    assert plan.restored(plan.prompts) == prompts


def test_texts_are_clipped_and_can_be_sent(ranker: ScriptedRanker, config: ClientConfig) -> None:
    offline_plan(config, ["x" * (MAX_CHARS + 1), "half a pair: \ud800"])
    assert scored_calls(ranker) == [["x" * MAX_CHARS, "half a pair: ?"]]


def test_a_client_of_the_callers_stays_open(config: ClientConfig) -> None:
    with RankerClient(config) as client:
        assert offline_plan(client, ["a"]).scored == 1
        assert client.score(["b"], timeout_ms=TIMEOUT_S * 1000).scores


# What goes wrong.


def test_no_sidecar_leaves_the_callers_order(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    prompts = ["x" * 30, "x" * 10, "x" * 20]
    plan = offline_plan(ClientConfig(address=nobody), prompts)
    assert plan == OfflinePlan(prompts=prompts, priorities=[0, 0, 0], positions=(0, 1, 2), scored=0)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "3 of 3 prompts have no score" in record.message
    assert f"{nobody}: 3 UnavailableError" in record.message


def test_token_ids_alone_are_said_not_to_be_scorable(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    assert offline_plan(ClientConfig(address=nobody), [[1, 2], [3]]).scored == 0
    (record,) = caplog.records
    assert "none of 2 prompts has a text to score" in record.message


def test_a_call_that_fails_leaves_its_prompts_middling(
    ranker: ScriptedRanker, config: ClientConfig, caplog: pytest.LogCaptureFixture
) -> None:
    def second_fails(request: ranker_pb2.ScoreRequest, context: grpc.ServicerContext) -> ranker_pb2.ScoreResponse:
        if "bad" in request.prompts:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "secret")
        return score_reply(request)

    ranker.answer_score = second_fails
    long, short = "x" * 80, "x" * 20
    plan = offline_plan(config, [long] * 4 + ["bad"] * 4 + [short] * 4)
    assert plan.prompts == [short] * 4 + ["bad"] * 4 + [long] * 4
    assert plan.scored == 8
    (record,) = caplog.records
    assert "4 of 12 prompts have no score" in record.message
    assert "4 OverloadedError" in record.message
    assert "secret" not in caplog.text


def test_nonsense_is_not_used(ranker: ScriptedRanker, config: ClientConfig, caplog: pytest.LogCaptureFixture) -> None:
    def nan(request: ranker_pb2.ScoreRequest, context: grpc.ServicerContext) -> ranker_pb2.ScoreResponse:
        reply = score_reply(request)
        reply.scores[0].quantile = float("nan")
        return reply

    ranker.answer_score = nan
    assert offline_plan(config, ["xx", "x"]).priorities == [0, 0]
    assert "2 BadReplyError" in caplog.text


def test_after_failures_in_a_row_nothing_more_is_asked(
    ranker: ScriptedRanker, config: ClientConfig, caplog: pytest.LogCaptureFixture
) -> None:
    ranker.fail_with(grpc.StatusCode.INTERNAL, "broken")
    plan = offline_plan(config, ["x"] * 20)
    assert plan.scored == 0
    assert len(scored_calls(ranker)) == FAILURES_IN_A_ROW
    assert "12 ServerFaultError, 8 not asked any more" in caplog.text


def test_a_frozen_sidecar_costs_the_deadline_of_each_call(
    ranker: ScriptedRanker, config: ClientConfig, caplog: pytest.LogCaptureFixture
) -> None:
    ranker.answer_score = ranker.freeze
    assert offline_plan(config, ["x"] * 40, timeout_ms=50).scored == 0
    assert "12 DeadlineError, 28 not asked any more" in caplog.text


def test_the_whole_has_a_deadline_too(ranker: ScriptedRanker, config: ClientConfig, caplog: pytest.LogCaptureFixture) -> None:
    """The second call hangs, and takes all that was left."""

    def second_hangs(request: ranker_pb2.ScoreRequest, context: grpc.ServicerContext) -> ranker_pb2.ScoreResponse:
        return ranker.freeze(request, context) if "b" in request.prompts else score_reply(request)

    ranker.answer_score = second_hangs
    plan = offline_plan(config, list("aaaabbbbcccc"), total_timeout_ms=2000)
    assert plan.scored == 4
    assert "4 DeadlineError, 4 out of time" in caplog.text


# The short cuts.


@pytest.mark.parametrize("run", [generate_in_order, chat_in_order])
def test_in_order_and_back(config: ClientConfig, run: Any) -> None:
    llm = FakeLLM()
    prompts = ["x" * 3, "x", "x" * 2] if run is generate_in_order else [user("x" * 3), user("x"), user("x" * 2)]
    outputs = run(llm, prompts, ["p3", "p1", "p2"], client=config, lora_request=["l3", "l1", "l2"], use_tqdm=False)
    assert outputs == [(prompts[0], "p3", "l3", False), (prompts[1], "p1", "l1", False), (prompts[2], "p2", "l2", False)]
    assert llm.ran == [prompts[1], prompts[2], prompts[0]]
    assert run(llm, prompts, client=config, order="longest")[1] == (prompts[1], None, None, True)
    assert llm.ran == [prompts[0], prompts[2], prompts[1]]


def test_a_chat_that_takes_no_priority_gets_the_sorted_list(config: ClientConfig) -> None:
    llm = OldLLM()
    assert [output[1] for output in chat_in_order(llm, [user("xx"), user("x")], ["p2", "p1"], client=config)] == ["p2", "p1"]
    assert llm.ran == [user("x"), user("xx")]


def test_a_priority_of_the_callers_own_is_refused_before_anything_is_asked(
    ranker: ScriptedRanker, config: ClientConfig
) -> None:
    with pytest.raises(TypeError, match="priority"):
        generate_in_order(FakeLLM(), ["a"], client=config, priority=[1])
    assert not ranker.requests
