import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from janus_runtime.sampling.sampler import Sampler, keep_top_k, keep_top_p

finite = st.floats(-50, 50, width=32)
rows = hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(2, 20)), elements=finite)


def probabilities(scores):
    weights = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@given(rows, st.integers(1, 25))
def test_top_k_keeps_the_k_largest_and_ties(scores, k):
    kept = np.isfinite(keep_top_k(scores, k))
    for row, keep in zip(scores, kept, strict=True):
        expected = row >= np.sort(row)[::-1][min(k, len(row)) - 1]
        assert np.array_equal(keep, expected)


@given(rows, st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_ids_that_reach_p(scores, p):
    kept = np.isfinite(keep_top_p(scores, p))
    for weights, keep in zip(probabilities(scores), kept, strict=True):
        assert keep.any()
        assert weights[keep].sum() >= p - 1e-9
        # Without its least likely member the set falls short.
        assert weights[keep].sum() - weights[keep].min() < p + 1e-9
        assert weights[keep].min() >= (weights[~keep].max() if (~keep).any() else 0)


@given(rows, st.integers(1, 25), st.floats(0.01, 1))
def test_filters_change_no_kept_score(scores, k, p):
    for filtered in (keep_top_k(scores, k), keep_top_p(scores, p)):
        kept = np.isfinite(filtered)
        assert np.array_equal(filtered[kept], scores[kept])


def test_filters_on_four_numbers():
    scores = np.log(np.array([[0.1, 0.2, 0.3, 0.4]], np.float32))
    assert np.isfinite(keep_top_k(scores, 2)).tolist() == [[False, False, True, True]]
    assert np.isfinite(keep_top_p(scores, 0.65)).tolist() == [[False, False, True, True]]
    assert np.isfinite(keep_top_p(scores, 0.75)).tolist() == [[False, True, True, True]]


@given(rows)
def test_temperature_0_takes_the_largest_and_no_noise(scores):
    assert Sampler(temperature=0)(scores, None).tolist() == scores.argmax(-1).tolist()


def test_temperature_divides_before_the_noise():
    scores, noise = np.array([[0.0, 1.0]], np.float32), np.array([[0.7, 0.0]], np.float32)
    assert Sampler(temperature=1)(scores, noise) == [1]
    assert Sampler(temperature=2)(scores, noise) == [0]


@given(rows, st.integers(0, 2**32))
def test_a_filtered_id_is_never_drawn(scores, seed):
    noise = np.random.default_rng(seed).gumbel(size=scores.shape).astype(np.float32)
    ids = Sampler(top_k=1)(scores, noise)
    assert np.array_equal(scores[np.arange(len(ids)), ids], scores.max(-1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature is -1; expected 0 .greedy. or 0.0001 to 1000000"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 1e-40}, "temperature is 1e-40; expected 0"),
        ({"top_k": -2}, "top_k is -2; expected 0"),
        ({"top_p": 0}, "top_p is 0; expected a number above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**settings)
