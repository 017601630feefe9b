import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from janus_runtime.sampling.guidance import FromImage, Pairs, Plain, pair

finite = st.floats(-50, 50, width=32)
rows = hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(2, 20)), elements=finite)


def test_pairs_alternate_conditional_first():
    assert pair(["c0", "c1"], ["u0", "u1"]) == ["c0", "u0", "c1", "u1"]


def test_guidance_is_the_published_formula():
    logits = np.array([[1.0, 2.0], [0.5, 3.0], [4.0, 4.0], [0.0, 8.0]], np.float32)
    assert Pairs(5).mix(logits).tolist() == [[3.0, -2.0], [20.0, -12.0]]


@given(rows)
def test_guidance_of_1_is_the_conditional_row_and_of_0_the_other(logits):
    both = np.array(pair(list(logits), list(logits[::-1])))
    assert np.allclose(Pairs(1).mix(both), logits, atol=1e-4)
    assert np.array_equal(Pairs(0).mix(both), logits[::-1])


@given(rows)
def test_without_guidance_logits_are_the_scores(logits):
    assert Plain().mix(logits) is logits


def test_guidance_from_an_image_is_the_published_formula():
    """(c + v·s) / (1 + v) beside the blank row, as Janus-4o's loop writes it."""
    logits = np.array([[6.0, 0.0], [3.0, 3.0], [1.0, -1.0]], np.float32)
    assert FromImage(5, 2).mix(logits).tolist() == [[1 + 5 * (4 - 1), -1 + 5 * (2 + 1)]]
