"""RankerClient against a real server."""

import concurrent.futures
import time

import grpc
import pytest
from scripted_ranker import BUNDLE_ID, ScriptedRanker, bundle_reply, score_reply

from pars.v1 import ranker_pb2
from vllm_client import (
    BadReplyError,
    ClientConfig,
    DeadlineError,
    InvalidPromptsError,
    Longer,
    OverloadedError,
    RankerClient,
    ServerFaultError,
    Tier,
    UnavailableError,
)


@pytest.fixture
def client(ranker):
    with RankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000)) as client:
        yield client


def test_score(client, ranker):
    batch = client.score(["a", "bbb"], tier=Tier.NGRAM)
    assert [score.score for score in batch.scores] == [1, 3]
    assert batch.bundle_id == BUNDLE_ID
    assert ranker.requests[0].tier == ranker_pb2.TIER_NGRAM


def test_compare(client):
    (comparison,) = client.compare([("long prompt", "short")]).comparisons
    assert comparison.longer is Longer.A
    assert comparison.score_a.score > comparison.score_b.score


def test_get_bundle(client):
    served = client.get_bundle()
    assert (served.manifest.bundle_id, served.execution_provider) == (BUNDLE_ID, "CPUExecutionProvider")


def test_score_all_splits_by_the_servers_limit_and_keeps_the_order(client, ranker):
    prompts = ["x" * (length % 40) for length in range(1, 11)]
    batch = client.score_all(prompts)
    assert [score.score for score in batch.scores] == [len(prompt) for prompt in prompts]
    assert [len(request.prompts) for request in ranker.requests[1:]] == [4, 4, 2]
    assert batch.timing.infer_time_ns == 3 * 3_000_000


def test_score_all_of_nothing(client):
    batch = client.score_all([])
    assert (batch.scores, batch.bundle_id) == ((), BUNDLE_ID)


def test_score_all_refuses_a_bundle_that_changes_on_the_way(client, ranker):
    def another_bundle(request, context):
        reply = score_reply(request)
        reply.bundle_id = BUNDLE_ID if "first" in request.prompts else "another"
        return reply

    ranker.answer_score = another_bundle
    with pytest.raises(BadReplyError, match="bundle changed"):
        client.score_all(["first", "a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidPromptsError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, OverloadedError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineError),
        (grpc.StatusCode.INTERNAL, ServerFaultError),
        (grpc.StatusCode.UNIMPLEMENTED, ServerFaultError),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_status_codes_arrive_as_errors(client, ranker, code, error):
    ranker.fail_with(code, "because")
    with pytest.raises(error, match="because"):
        client.score(["a"])


def test_nonsense_is_refused(client, ranker):
    ranker.answer_score = lambda request, context: ranker_pb2.ScoreResponse()
    with pytest.raises(BadReplyError, match="0 scores for 1 prompts"):
        client.score(["a"])


@pytest.mark.parametrize("override", [True, False], ids=["of the call", "of the config"])
def test_the_deadline_holds(ranker, override):
    ranker.answer_score = ranker.freeze
    config = ClientConfig(address=ranker.address, deadline_ms=20_000 if override else 50)
    with RankerClient(config) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            client.score(["a"], timeout_ms=50 if override else None)
        assert 0.04 < time.monotonic() - began < 10


def test_a_missing_server_is_noticed_at_once_and_not_waited_for(nobody):
    with RankerClient(ClientConfig(address=nobody, deadline_ms=20_000)) as client:
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(UnavailableError):
                client.score(["a"])
        assert time.monotonic() - began < 10


def test_a_server_that_comes_back_on_its_socket_is_found_again(tmp_path):
    address = f"unix:{tmp_path / 'pars.sock'}"
    with RankerClient(ClientConfig(address=address, deadline_ms=20_000, max_reconnect_backoff_ms=100)) as client:
        first = ScriptedRanker(address)
        try:
            assert client.score(["a"]).scores
        finally:
            first.stop()
        with pytest.raises(UnavailableError):
            client.score(["a"])
        second = ScriptedRanker(address)
        try:
            give_up_at = time.monotonic() + 20
            while not answers(client):
                assert time.monotonic() < give_up_at
                time.sleep(0.02)
        finally:
            second.stop()


def answers(client):
    try:
        return bool(client.score(["a"]).scores)
    except UnavailableError:
        return False


def test_closing_fails_the_call_in_flight_and_later_ones(client, ranker):
    ranker.answer_score = ranker.freeze
    with concurrent.futures.ThreadPoolExecutor() as pool:
        in_flight = pool.submit(client.score, ["a"])
        assert ranker.called.wait(20)
        client.close()
        with pytest.raises(UnavailableError):
            in_flight.result(timeout=20)
    with pytest.raises(UnavailableError, match="closed"):
        client.score(["a"])
    client.close()


def test_one_client_serves_many_threads(client):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda length: client.score(["x" * length]), range(1, 50)))
    assert [batch.scores[0].score for batch in batches] == list(range(1, 50))


def test_a_channel_can_be_handed_in_and_stays_the_callers(ranker):
    with grpc.insecure_channel(ranker.address) as channel:
        for _ in range(2):
            with RankerClient(ClientConfig(deadline_ms=20_000), channel=channel) as client:
                assert client.score(["a"]).scores


def test_a_proxy_for_the_outside_world_is_not_used(ranker, nobody, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://{nobody}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    with RankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000)) as client:
        assert client.score(["a"]).scores


def test_a_large_prompt_and_a_large_reply_pass(client, ranker):
    assert client.score(["x" * 1_000_000]).scores[0].truncated
    manifest = bundle_reply()
    manifest.manifest.data_statement = "y" * 3_000_000
    ranker.answer_bundle = lambda: manifest
    assert len(client.get_bundle().manifest.data_statement) == 3_000_000
