"""Noise is a contract with CUDA and C++: the vectors in contract/noise.json fix it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from janus_runtime.sampling.noise import Noise, check_seed, gumbel, normal, philox4x32
from testing import CONTRACT

VECTORS = json.loads((CONTRACT / "noise.json").read_text())


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # The known answers that the authors of the generator publish (Random123, kat_vectors, philox4x32 10).
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, expected):
    assert philox4x32(np.array([counter], np.uint32), key).tolist() == [expected]


@pytest.mark.parametrize("vector", VECTORS["gumbel"], ids=lambda vector: f"seed{vector['seed']}-step{vector['step']}")
def test_gumbel_vectors(vector):
    noise = gumbel(vector["seed"], vector["step"], vector["num_ids"])
    got = [noise[place].view(np.uint32).item() for place in vector["places"]]
    assert got == [int(bits, 16) for bits in vector["bits"]]


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000), st.integers(1, 67))
def test_noise_of_an_id_does_not_depend_on_how_many_there_are(seed, step, count):
    assert np.array_equal(gumbel(seed, step, count), gumbel(seed, step, 70)[:count])


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_noise_is_finite(seed, step):
    assert np.isfinite(gumbel(seed, step, 64)).all()


@pytest.mark.parametrize("vector", VECTORS["normal"], ids=lambda vector: f"seed{vector['seed']}")
def test_normal_vectors(vector):
    noise = normal(vector["seed"], tuple(vector["shape"])).reshape(-1)
    got = [noise[place].view(np.uint32).item() for place in vector["places"]]
    assert got == [int(bits, 16) for bits in vector["bits"]]


def test_normal_is_normal():
    """Moments and tails of a million numbers, each within five standard errors; neighbours, which share their bits, do not correlate."""
    noise = normal(1, (4, 500, 500)).astype(np.float64).reshape(-1)
    assert abs(noise.mean()) < 5e-3 and abs(noise.var() - 1) < 7e-3 and abs((noise**4).mean() - 3) < 5e-2
    assert abs((np.abs(noise) > 3).mean() - 0.0026998) < 2.6e-4
    assert abs((noise[0::2] * noise[1::2]).mean()) < 7e-3 and abs((noise[1:] * noise[:-1]).mean()) < 5e-3


@given(st.integers(0, 2**64 - 1), st.integers(1, 67))
def test_normal_numbers_do_not_depend_on_how_many_there_are(seed, count):
    assert np.array_equal(normal(seed, (count,)), normal(seed, (70,))[:count])


def test_every_seed_and_step_has_noise_of_its_own():
    drawn = [gumbel(seed, step, 8).tobytes() for seed in (0, 1, 2**32, 2**63) for step in (0, 1)]
    assert len(set(drawn)) == len(drawn)


def test_gumbel_max_draws_from_the_softmax():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    draws = np.array([(logits + gumbel(seed, 0, 4)).argmax() for seed in range(4000)])
    shares = np.bincount(draws, minlength=4) / len(draws)
    # Three standard errors of the largest share at 4000 draws.
    assert np.abs(shares - [0.5, 0.3, 0.15, 0.05]).max() < 3 * np.sqrt(0.25 / 4000)


def test_rows_follow_their_own_seeds():
    assert np.array_equal(Noise([5, 9], 10)(3), np.stack([gumbel(5, 3, 10), gumbel(9, 3, 10)]))


@pytest.mark.parametrize(("seed", "count"), [(-1, 1), (2**64, 1), (2**64 - 2, 3)])
def test_seeds_outside_64_bits_are_refused(seed, count):
    with pytest.raises(ValueError, match=f"seed is {seed}; expected 0 to"):
        check_seed(seed, count)
