"""From scores to ids: pure functions of scores and noise. Letters: n pictures, V ids."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]

MIN_TEMPERATURE = 1e-4


def keep_top_k(scores: Floats, top_k: int) -> Floats:
    """All but the k largest of each row become -inf; ties with the k-th stay."""
    if top_k >= scores.shape[-1]:
        return scores
    kth = np.partition(scores, -top_k, axis=-1)[..., -top_k, None]
    return np.where(scores < kth, np.float32(-np.inf), scores)


def keep_top_p(scores: Floats, top_p: float) -> Floats:
    """Keeps the fewest ids of each row, most likely first, whose probabilities reach `top_p`; at least one."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=-1).astype(np.float64)
    weights = np.exp(ranked - ranked[..., :1])
    weights /= weights.sum(axis=-1, keepdims=True)
    before = np.cumsum(weights, axis=-1) - weights
    before[..., 0] = 0.0
    kept = np.empty(scores.shape, bool)
    np.put_along_axis(kept, order, before < top_p, axis=-1)
    return np.where(kept, scores, np.float32(-np.inf))


@dataclass(frozen=True)
class Sampler:
    """`sampler(scores, noise)` draws one id a row: argmax of scores / temperature + Gumbel noise.

    That is a multinomial draw from softmax(scores / temperature) (Gumbel-max). Temperature 0 is greedy
    and takes no noise. top_k 0 and top_p 1 keep everything. Temperature comes first, then top_k, then top_p.
    Raises ValueError on settings outside their range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        # Below the smallest, logits over temperature leave fp32; such a draw is greedy in all but name.
        if self.temperature != 0 and not MIN_TEMPERATURE <= self.temperature <= 1e6:
            raise ValueError(f"temperature is {self.temperature}; expected 0 (greedy) or {MIN_TEMPERATURE} to 1000000")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; expected 0 (all ids) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; expected a number above 0 and up to 1 (all ids)")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def __call__(self, scores: Floats, noise: Floats | None) -> Ids:
        """scores [n, V], noise [n, V] or None when greedy -> ids [n]. Of equal scores the lowest id wins."""
        if self.greedy:
            return _largest(scores)
        assert noise is not None
        scaled = scores / np.float32(self.temperature)
        if self.top_k:
            scaled = keep_top_k(scaled, self.top_k)
        if self.top_p < 1:
            scaled = keep_top_p(scaled, self.top_p)
        return _largest(scaled + noise)


def _largest(scores: Floats) -> Ids:
    ids: Ids = scores.argmax(axis=-1).astype(np.int32)
    return ids
