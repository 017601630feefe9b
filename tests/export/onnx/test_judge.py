"""Which products get one scale a column: what the errors say of bell curves and of channels that stick out."""

import numpy as np
import pytest
import torch

from janus_export.onnx.judge import LIMIT, ProductJudge
from janus_export.recipes import FromCheckpoint

MATRIX = FromCheckpoint((("w", (96, 512)),), transposed=True)


def judged(x, weight, times=1):
    judge = ProductJudge([MATRIX])
    for _ in range(times):
        judge.watch(MATRIX, torch.from_numpy(x), torch.from_numpy(weight))
    return judge


@pytest.fixture
def bell():
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, 20, 512)).astype(np.float32), rng.standard_normal((512, 96)).astype(np.float32)


def test_a_bell_curve_bears_one_scale_a_column(bell):
    judgement = judged(*bell).found[MATRIX]
    assert 0.005 < judgement.block < judgement.column < LIMIT * judgement.block < 0.03
    assert judgement.choose(can_smooth=False) == (True, None)


def test_a_channel_of_large_activations_is_smoothed_behind_a_norm_and_left_in_blocks_elsewhere(bell):
    x, weight = bell
    x[..., 7] *= 300
    judge = judged(x, weight)
    judgement = judge.found[MATRIX]
    assert judgement.column > LIMIT * judgement.block > judgement.smoothed
    assert judgement.choose(can_smooth=True) == (True, judgement.smoothing) and judge.takes(MATRIX)
    assert judgement.choose(can_smooth=False) == (False, None)
    factors = judgement.smoothing.factors
    assert factors[7] == factors.max() >= 8 and (np.log2(factors) % 1 == 0).all()


def test_smoothing_is_left_out_where_it_helps_little(bell):
    judgement = judged(*bell).found[MATRIX]
    assert judgement.smoothed > 0.75 * judgement.column and judgement.choose(can_smooth=True) == (True, None)


def test_one_token_of_large_numbers_hides_no_other():
    """A product whose other tokens drown in it is refused, however small its error as a whole."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((40, 2048)).astype(np.float32), rng.standard_normal((2048, 96)).astype(np.float32)
    x[1:, 300] *= 1000
    x[0] *= 1e6
    judgement = judged(x, weight).found[MATRIX]
    assert judgement.column > LIMIT * judgement.block


def test_the_worst_of_several_looks_counts(bell):
    x, weight = bell
    judge = judged(x, weight)
    calm = judge.found[MATRIX].column
    wild = x.copy()
    wild[..., 3] *= 200
    judge.watch(MATRIX, torch.from_numpy(wild), torch.from_numpy(weight))
    judge.watch(MATRIX, torch.from_numpy(x), torch.from_numpy(weight))
    assert judge.found[MATRIX].column > 4 * calm


def test_channels_that_are_always_zero_and_tokens_of_zeros_do_no_harm(bell):
    x, weight = bell
    x[..., 5] = 0
    x[0, 3] = 0
    weight[9] = 0
    judgement = judged(x, weight).found[MATRIX]
    assert np.isfinite([judgement.column, judgement.smoothed, judgement.block]).all() and judgement.choose(can_smooth=False)[0]


def test_matrices_that_nobody_asked_for_are_not_looked_at(bell):
    x, weight = (torch.from_numpy(each) for each in bell)
    judge = ProductJudge([])
    judge.watch(MATRIX, x, weight)
    assert not judge.found and not judge.takes(MATRIX)
