"""Requests and replies without a server: what is refused on the way out, and which nonsense on the way in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_ranker import BUNDLE_ID, bundle_reply, compare_reply, prompt_score, score_reply

from pars.v1 import ranker_pb2
from vllm_client import (
    BadReplyError,
    InvalidPromptsError,
    Longer,
    OverloadedError,
    ServerFaultError,
    ServerTiming,
    Tier,
    replies,
    requests,
)


@given(st.lists(st.text(max_size=8), max_size=20), st.integers(1, 5), st.integers(1, 40))
def test_splitting_keeps_every_prompt_in_order_and_both_limits(prompts, max_prompts, max_bytes):
    runs = list(requests.split(prompts, max_prompts, max_bytes))
    assert [prompt for run in runs for prompt in run] == prompts
    for run in runs:
        assert 1 <= len(run) <= max_prompts
        assert len(run) == 1 or sum(len(prompt.encode()) for prompt in run) <= max_bytes


def test_splitting_wastes_no_calls():
    assert list(requests.split(["a"] * 5, 2)) == [["a", "a"], ["a", "a"], ["a"]]


@pytest.mark.parametrize(
    "ask", [lambda text: requests.score_request(text, Tier.ANY), lambda text: list(requests.split(text, 4))]
)
def test_one_string_is_not_a_list_of_prompts(ask):
    with pytest.raises(TypeError, match="not one string"):
        ask("hello")


def test_a_lone_surrogate_is_the_callers_error_and_is_not_quoted():
    secret = "secret \ud800"
    for ask in (
        lambda: requests.score_request([secret], Tier.ANY),
        lambda: requests.compare_request([("fine", secret)], Tier.ANY),
    ):
        with pytest.raises(InvalidPromptsError, match="lone surrogate") as caught:
            ask()
        assert "secret" not in str(caught.value)
    assert list(requests.split([secret], 4)) == [[secret]]


def test_any_other_text_is_a_prompt():
    prompts = ["", " ", "\0", "\n", "日本語", "👩‍👩‍👧", "\u202e", "x" * 1_000_000]
    assert list(requests.score_request(prompts, Tier.NGRAM).prompts) == prompts


def test_a_good_reply_becomes_values():
    batch = replies.scored_batch(score_reply(ranker_pb2.ScoreRequest(prompts=["abc", "x" * 60])), 2, Tier.ANY)
    short, long = batch.scores
    assert (short.score, short.expected_tokens, short.expected_tokens_p90, short.prompt_tokens) == (3, 30, 60, 5)
    assert short.quantile == pytest.approx(0.03)
    assert (short.truncated, long.truncated) == (False, True)
    assert short.tier is Tier.ENCODER
    assert batch.bundle_id == BUNDLE_ID
    assert batch.timing == ServerTiming(tokenize_time_ns=1_000_000, queue_time_ns=2_000_000, infer_time_ns=3_000_000)


NONSENSE = {
    "score is nan": {"score": math.nan},
    "score is -inf": {"score": -math.inf},
    "quantile is nan": {"quantile": math.nan},
    "quantile is -0.5": {"quantile": -0.5},
    "quantile is 1.5": {"quantile": 1.5},
    "expected_tokens is nan": {"expected_tokens": math.nan},
    "expected_tokens is -1": {"expected_tokens": -1},
    "expected_tokens_p90 is inf": {"expected_tokens_p90": math.inf},
    "tier is 0": {"tier": 0},
    "tier is 99": {"tier": 99},
}


@pytest.mark.parametrize(("message", "fields"), NONSENSE.items(), ids=list(NONSENSE))
def test_nonsense_in_one_score_spoils_the_reply(message, fields):
    bad = prompt_score("bad")
    for name, value in fields.items():
        setattr(bad, name, value)
    reply = ranker_pb2.ScoreResponse(scores=[prompt_score("fine"), bad])
    with pytest.raises(BadReplyError, match=f"^{message}"):
        replies.scored_batch(reply, 2, Tier.ANY)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_scores_is_nonsense(count):
    reply = ranker_pb2.ScoreResponse(scores=[prompt_score("x")] * count)
    with pytest.raises(BadReplyError, match=f"^{count} scores for 2 prompts$"):
        replies.scored_batch(reply, 2, Tier.ANY)


def test_the_tier_asked_for_must_answer():
    reply = ranker_pb2.ScoreResponse(scores=[prompt_score("x", ranker_pb2.TIER_NGRAM)])
    with pytest.raises(BadReplyError, match=r"^tier NGRAM answered where ENCODER was asked for$"):
        replies.scored_batch(reply, 1, Tier.ENCODER)
    assert replies.scored_batch(reply, 1, Tier.ANY).scores[0].tier is Tier.NGRAM


def test_comparisons():
    pairs = [("aa", "a"), ("a", "aa"), ("a", "b")]
    compared = replies.compared_batch(compare_reply(requests.compare_request(pairs, Tier.ANY)), 3, Tier.ANY)
    assert [comparison.longer for comparison in compared.comparisons] == [Longer.A, Longer.B, Longer.NEITHER]
    assert [comparison.expected_tokens_difference for comparison in compared.comparisons] == [10, -10, 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"longer": 0}, "longer is 0"),
        ({"longer": 2}, "longer is 2"),
        ({"expected_tokens_difference": math.nan}, "difference is nan"),
    ],
    ids=["unspecified", "against its own scores", "not a number"],
)
def test_nonsense_comparisons(fields, message):
    reply = compare_reply(requests.compare_request([("aa", "a")], Tier.ANY))
    for name, value in fields.items():
        setattr(reply.comparisons[0], name, value)
    with pytest.raises(BadReplyError, match=message):
        replies.compared_batch(reply, 1, Tier.ANY)


def test_stream_items():
    item = ranker_pb2.ScoreStreamResponse(id=1, response=score_reply(ranker_pb2.ScoreRequest(prompts=["a"])))
    assert replies.streamed_batch(item, 1, Tier.ANY).scores[0].score == 1
    with pytest.raises(OverloadedError, match=r"^RESOURCE_EXHAUSTED: full$"):
        replies.streamed_batch(ranker_pb2.ScoreStreamResponse(error=ranker_pb2.ItemError(code=8, message="full")), 1, Tier.ANY)
    with pytest.raises(ServerFaultError):
        replies.streamed_batch(ranker_pb2.ScoreStreamResponse(error=ranker_pb2.ItemError(code=4711)), 1, Tier.ANY)
    with pytest.raises(BadReplyError, match="neither"):
        replies.streamed_batch(ranker_pb2.ScoreStreamResponse(id=1), 1, Tier.ANY)


def test_the_bundle_must_say_what_it_is():
    assert replies.served_bundle(bundle_reply()).max_prompts_per_call == 4
    with pytest.raises(BadReplyError, match="no manifest"):
        replies.served_bundle(ranker_pb2.GetBundleResponse(max_prompts_per_call=4))
    no_room = bundle_reply()
    no_room.max_prompts_per_call = 0
    with pytest.raises(BadReplyError, match="no prompts"):
        replies.served_bundle(no_room)


def test_joining_adds_up_and_refuses_two_bundles():
    part = replies.scored_batch(score_reply(ranker_pb2.ScoreRequest(prompts=["a"])), 1, Tier.ANY)
    whole = replies.joined([part, part], BUNDLE_ID)
    assert whole.scores == part.scores * 2
    assert whole.timing == ServerTiming(2_000_000, 4_000_000, 6_000_000)
    with pytest.raises(BadReplyError, match="bundle changed"):
        replies.joined([part], "another")
