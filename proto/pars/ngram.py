"""Features of the cheap scorer: hashed n-grams of token ids. The trainer fits weights to them, the sidecar multiplies.

Both must agree to the bit, so the hash and the layout of the weight vector live here and nowhere else. NumPy only.

Layout of the weights: `bucket_count` hashed n-gram weights, then `DENSE_COUNT` dense ones (intercept, log of the token count).
"""

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]

DENSE_COUNT = 2
OPENING_TOKENS = 8
"""The first tokens count once more as themselves-at-the-start: an instruction usually begins with its verb."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SALTS = tuple(np.uint64(salt) for salt in (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0))


def weight_count(bucket_count: int) -> int:
    """Length of the weight vector for `bucket_count` hash buckets (a power of two)."""
    if bucket_count < 2 or bucket_count & (bucket_count - 1):
        raise ValueError(f"bucket_count must be a power of two, got {bucket_count}")
    return bucket_count + DENSE_COUNT


def features(token_ids: Tokens, bucket_count: int) -> tuple[Tokens, npt.NDArray[np.float32]]:
    """Indices into the weight vector and the value at each; an index may occur more than once and then counts that often.

    token_ids: int64[n], special tokens included, already cut to the model's length; n may be 0.
    Hashed features are single tokens, neighbouring pairs and opening tokens, each worth 1/sqrt(their number), so that long
    prompts do not weigh more; the dense ones are 1 and log1p(n).
    """
    ids = token_ids.astype(np.uint64)
    hashed = np.concatenate(
        (
            _hash(ids, _SALTS[0]),
            _hash(ids[:-1] * _GOLDEN + ids[1:], _SALTS[1]),
            _hash(ids[:OPENING_TOKENS], _SALTS[2]),
        )
    )
    buckets = (hashed & np.uint64(bucket_count - 1)).astype(np.int64)
    indices = np.append(buckets, (bucket_count, bucket_count + 1))
    values = np.full(len(indices), 1.0 / np.sqrt(max(len(buckets), 1)), dtype=np.float32)
    values[-2:] = 1.0, np.log1p(len(ids))
    return indices, values


def score(token_ids: Tokens, weights: Weights) -> float:
    """The linear score of one prompt: higher means a longer expected response (in log tokens, roughly)."""
    indices, values = features(token_ids, len(weights) - DENSE_COUNT)
    return float(weights[indices].astype(np.float64) @ values)


def _hash(keys: npt.NDArray[np.uint64], salt: np.uint64) -> npt.NDArray[np.uint64]:
    # One multiply-xorshift round of splitmix64; unsigned NumPy arithmetic wraps round, which is what is wanted.
    mixed = (keys + salt) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _MIX
    return mixed ^ (mixed >> np.uint64(29))
