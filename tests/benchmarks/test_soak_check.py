"""soak's check of answers: right ones have no fault, and every wrong one is noticed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from soak_answers import ENCODER, NGRAM, planned, response

from benchmarks.soak.bundles import read_bundle_id
from benchmarks.soak.check import Known
from benchmarks.soak.mix import COMPARE
from pars.v1 import ranker_pb2


def test_right_answers_have_no_fault(known: Known, bundles: tuple[Path, Path]) -> None:
    for bundle in bundles:
        for tier in (ENCODER, NGRAM):
            assert known.fault(planned(2, 0), response(bundle, 2, 0, tier=tier).SerializeToString()) is None


def swapped_scores(answer: ranker_pb2.ScoreResponse) -> None:
    first, second = answer.scores
    first.score, second.score = second.score, first.score


def other_bundle(answer: ranker_pb2.ScoreResponse) -> None:
    answer.bundle_id = "0" * 16


def one_missing(answer: ranker_pb2.ScoreResponse) -> None:
    del answer.scores[1]


def tiers_mixed(answer: ranker_pb2.ScoreResponse) -> None:
    answer.scores[1].tier = NGRAM


def all_by_ngram(answer: ranker_pb2.ScoreResponse) -> None:
    for each in answer.scores:
        each.tier = NGRAM


def not_a_number(answer: ranker_pb2.ScoreResponse) -> None:
    answer.scores[0].score = float("nan")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (swapped_scores, "is off by 3"),
        (other_bundle, "bundle 0000000000000000"),
        (one_missing, "1 scores for 2 prompts"),
        (tiers_mixed, "tiers are mixed"),
        (all_by_ngram, "tier 2 answers where 1"),
        (not_a_number, "is off by nan"),
    ],
)
def test_every_wrong_answer_is_noticed(
    known: Known, bundles: tuple[Path, Path], spoil: Callable[[ranker_pb2.ScoreResponse], None], fault: str
) -> None:
    answer = response(bundles[0], 1, 2)
    spoil(answer)
    found = known.fault(planned(1, 2, tier=ENCODER), answer.SerializeToString())
    assert found is not None
    assert fault in found


def test_an_answer_that_mixes_two_bundles_is_noticed(known: Known, bundles: tuple[Path, Path]) -> None:
    answer = response(bundles[0], 2)
    answer.bundle_id = read_bundle_id(bundles[1])
    assert "expected tokens are not those" in (known.fault(planned(2), answer.SerializeToString()) or "")


def test_a_comparison_must_agree_with_its_scores(known: Known, bundles: tuple[Path, Path]) -> None:
    a, b = response(bundles[0], 2, 1).scores
    comparison = ranker_pb2.Comparison(longer=ranker_pb2.LONGER_A, score_a=a, score_b=b)
    answer = ranker_pb2.CompareResponse(comparisons=[comparison], bundle_id=read_bundle_id(bundles[0]))
    call = planned(2, 1, method=COMPARE)
    assert known.fault(call, answer.SerializeToString()) is None
    answer.comparisons[0].longer = ranker_pb2.LONGER_B
    assert "contradicts" in (known.fault(call, answer.SerializeToString()) or "")
