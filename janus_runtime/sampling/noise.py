"""Noise that is the same in Python, CUDA and C++: Philox4x32-10 bits as Gumbel or normal numbers.

Generator: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Key = the 64-bit seed,
low word first. Counter = (step, block of four numbers, 0, 0). Letters: n pictures or answers, V ids.
"""

import operator

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox4x32(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Ten rounds over `counter` [..., 4] under a key of two 32-bit words: random bits [..., 4]."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> _WORD) ^ c1 ^ np.uint64(k0),
            second & _LOW,
            (first >> _WORD) ^ c3 ^ np.uint64(k1),
            first & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def _uniform(seed: int, step: int, count: int) -> NDArray[np.float64]:
    """`count` numbers `u = ((bits >> 8) + 0.5) / 2^24`, in whole blocks of four."""
    num_blocks = -(-count // 4)
    counter = np.zeros((num_blocks, 4), np.uint32)
    counter[:, 0] = step
    counter[:, 1] = np.arange(num_blocks, dtype=np.uint32)
    bits = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32)).reshape(-1)
    uniform: NDArray[np.float64] = ((bits >> np.uint32(8)).astype(np.float64) + 0.5) / 2.0**24
    return uniform


def gumbel(seed: int, step: int, num_ids: int) -> NDArray[np.float32]:
    """Noise [V] of one draw: `-log(-log u)` in fp64, rounded to fp32."""
    result: NDArray[np.float32] = (-np.log(-np.log(_uniform(seed, step, num_ids)[:num_ids]))).astype(np.float32)
    return result


def normal(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal numbers, row-major, as the noise of step 0: of each pair of uniform ones `sqrt(-2 log u)` times cosine
    and sine of `2 pi v` (Box and Muller 1958) in fp64, rounded to fp32."""
    count = int(np.prod(shape))
    first, second = _uniform(seed, 0, count).reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log(first)), 2 * np.pi * second
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    result: NDArray[np.float32] = pairs.reshape(-1)[:count].reshape(shape).astype(np.float32)
    return result


def check_seed(seed: int, count: int = 1) -> int:
    """The seed as a plain int. Raises ValueError unless `seed` … `seed + count - 1` are 64-bit keys, TypeError unless they are whole."""
    seed, count = operator.index(seed), operator.index(count)
    if not 0 <= seed <= 2**64 - count:
        raise ValueError(f"seed is {seed}; expected 0 to 2^64 - {count}")
    return seed


class Noise:
    """Gumbel noise for rows that each have a seed of their own: `noise(step)` is [n, V]."""

    def __init__(self, seeds: list[int], num_ids: int) -> None:
        self.seeds = seeds
        self.num_ids = num_ids

    def __call__(self, step: int) -> NDArray[np.float32]:
        return np.stack([gumbel(seed, step, self.num_ids) for seed in self.seeds])
