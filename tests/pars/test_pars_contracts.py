"""The contracts that are code: text clipping and hashed n-grams."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pars import ngram
from pars.text import MAX_CHARS, clip

TOKEN_LISTS = st.lists(st.integers(0, 50_000), max_size=40).map(lambda ids: np.array(ids, dtype=np.int64))


def test_clip_flags_exactly_what_it_cuts() -> None:
    assert clip("a" * MAX_CHARS) == ("a" * MAX_CHARS, False)
    assert clip("a" * (MAX_CHARS + 1)) == ("a" * MAX_CHARS, True)
    assert clip("") == ("", False)


def test_features_are_frozen() -> None:
    """Weights in existing checkpoints belong to exactly these buckets. If this fails, a new format version is due."""
    indices, values = ngram.features(np.array([101, 2054, 2003, 102]), 65_536)
    assert indices.tolist() == [737, 23705, 47885, 40429, 18916, 41386, 64821, 11523, 63708, 35170, 22539, 65536, 65537]
    np.testing.assert_allclose(values, [1 / np.sqrt(11)] * 11 + [1.0, np.log(5)], rtol=1e-6)


@given(TOKEN_LISTS, st.sampled_from([2, 64, 65_536]))
def test_every_index_lies_in_the_weight_vector(ids: np.ndarray, buckets: int) -> None:
    indices, values = ngram.features(ids, buckets)
    assert indices.min() >= 0
    assert indices.max() < ngram.weight_count(buckets)
    assert len(indices) == len(values)
    assert np.isfinite(values).all()


def test_score_is_the_dot_product_with_repeated_features_counted() -> None:
    weights = np.zeros(ngram.weight_count(1024), dtype=np.float32)
    ids = np.array([5, 5, 5, 5], dtype=np.int64)
    indices, values = ngram.features(ids, 1024)
    weights[indices[0]] = 2.0
    repeats = int((indices == indices[0]).sum())
    assert repeats >= 4
    assert ngram.score(ids, weights) == pytest.approx(2.0 * repeats * values[0])


def test_bucket_count_must_be_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        ngram.weight_count(1000)


def test_neighbours_are_ordered() -> None:
    forward, _ = ngram.features(np.array([7, 9]), 65_536)
    backward, _ = ngram.features(np.array([9, 7]), 65_536)
    assert forward[2] != backward[2], "the pair 7,9 is another feature than 9,7"
