"""How far two decoders' pixels are apart."""

import math

import numpy as np
import pytest

from janus_runtime.pictures.difference import levels, psnr_db, rms

GREY = np.zeros((1, 3, 100, 100), np.float32)


def test_an_even_shift():
    """A tenth of the range: 20 dB, 25.5 levels."""
    got = GREY + np.float32(0.2)
    assert rms(got, GREY) == pytest.approx(0.1) and psnr_db(got, GREY) == pytest.approx(20) and levels(got, GREY) == pytest.approx(25.5)


def test_equal_pixels():
    assert (rms(GREY, GREY), levels(GREY, GREY), psnr_db(GREY, GREY)) == (0, 0, 200)


def test_what_is_shown_alike_is_alike():
    assert rms(GREY + 3, GREY + 1) == 0


def test_one_number_in_a_thousand_may_be_anything():
    got = GREY.copy()
    got.reshape(-1)[:29] = 1
    assert levels(got, GREY) == 0
    got.reshape(-1)[:60] = 1
    assert levels(got, GREY) > 100


def test_what_is_no_picture():
    assert rms(GREY * np.float32(np.nan), GREY) == math.inf == levels(GREY * np.float32(np.nan), GREY)
    assert rms(GREY[:, :, :50], GREY) == math.inf and psnr_db(np.full_like(GREY, np.inf), GREY) == -math.inf
