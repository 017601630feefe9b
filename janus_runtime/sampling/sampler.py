"""From logits to ids: pure functions of logits and noise.

Which row of a pair is conditional is known to `pair` and `guide`, and nowhere else; of three, to `guide_from_image`.
Letters: n pictures, V ids.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
Row = TypeVar("Row")

MIN_TEMPERATURE = 1e-4
MAX_CFG_WEIGHT = 1000.0
IMAGE_WEIGHT = 5.0  # Janus-4o's


def pair(cond: list[Row], uncond: list[Row]) -> list[Row]:
    """n and n rows -> 2n rows, conditional at even places, as in the original loop."""
    return [row for rows in zip(cond, uncond, strict=True) for row in rows]


def guide(logits: Floats, cfg_weight: float) -> Floats:
    """Classifier-free guidance `u + w·(c - u)`: [2n, V] -> [n, V] (original `generation_inference.py`)."""
    cond, uncond = logits[0::2], logits[1::2]
    return uncond + np.float32(cfg_weight) * (cond - uncond)


def guide_from_image(logits: Floats, cfg_weight: float, image_weight: float) -> Floats:
    """Guidance of a picture that is drawn from another: [3n, V] -> [n, V] (Janus-4o's published loop).

    Of each three rows the first has the other picture seen and as ids, the second seen only, the last is blank. The second counts
    `image_weight` times as much as the first: (c + v·s) / (1 + v) is guided by `cfg_weight` as usual.
    """
    both, seen, uncond = logits[0::3], logits[1::3], logits[2::3]
    cond: Floats = np.add(both, np.float32(image_weight) * seen, dtype=np.float32) / np.float32(1 + image_weight)
    guided: Floats = uncond + np.float32(cfg_weight) * (cond - uncond)
    return guided


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
