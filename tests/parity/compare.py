"""Comparisons with messages that say what broke and by how much."""

import numpy as np

from janus_runtime.checks.tolerances import FP32, LOGIT_MARGIN
from janus_runtime.checks.verify import relative_difference


def assert_close(got: np.ndarray, expected: np.ndarray, what: str) -> None:
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, the reference has {expected.shape}"
    assert got.dtype == np.float32, f"{what}: {got.dtype}, an fp32 bundle should give float32"
    difference = relative_difference(got, expected)
    assert difference <= FP32, f"{what}: differs from the reference by {difference:.2e} of its largest value, allowed {FP32:.0e}"


def assert_same_ids(got: np.ndarray, expected: np.ndarray, lead: float, what: str) -> None:
    """`lead` is the smallest distance between the best and the second score on the reference's way."""
    # A toss-up in the reference would make equality a matter of rounding; the inputs are chosen to have none.
    assert lead > LOGIT_MARGIN, f"{what}: choose another input, the reference itself is a toss-up ({lead:.1e})"
    got, expected = np.asarray(got), np.asarray(expected)
    if not np.array_equal(got, expected):
        common = min(len(got), len(expected))
        apart = np.flatnonzero(got[:common] != expected[:common])
        first = int(apart[0]) if len(apart) else common
        raise AssertionError(
            f"{what}: {len(got)} ids against {len(expected)} of the reference, the first that differs is number {first}: "
            f"{got[first : first + 5]} against {expected[first : first + 5]}; no lead on the way is below {lead:.1e}"
        )
