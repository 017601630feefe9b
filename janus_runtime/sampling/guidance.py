"""Guidance: how the rows of one picture are mixed into the scores that its next id is drawn from.

Which row of a picture is conditional is known here and nowhere else. Letters: n pictures, V ids.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from .sampler import Floats

MAX_CFG_WEIGHT = 1000.0
IMAGE_WEIGHT = 5.0  # Janus-4o's

Row = TypeVar("Row")


class Guidance(Protocol):
    @property
    def rows(self) -> int:
        """Rows of the decoder for each picture or answer."""

    def mix(self, logits: Floats) -> Floats:
        """[n · rows, V] -> scores [n, V]."""


@dataclass(frozen=True)
class Plain:
    """No guidance: one row, whose logits are the scores."""

    rows: ClassVar[int] = 1

    def mix(self, logits: Floats) -> Floats:
        return logits


@dataclass(frozen=True)
class Pairs:
    """Classifier-free guidance `u + w·(c - u)` over pairs of rows, conditional first (original `generation_inference.py`)."""

    cfg_weight: float
    rows: ClassVar[int] = 2

    def mix(self, logits: Floats) -> Floats:
        cond, uncond = logits[0::2], logits[1::2]
        return uncond + np.float32(self.cfg_weight) * (cond - uncond)


@dataclass(frozen=True)
class FromImage:
    """Guidance of a picture that is drawn from another (Janus-4o's published loop).

    Of each three rows the first has the reference image both as features and as ids, the second as features only, the third is blank.
    The second counts `image_weight` times as much as the first: (c + v·s) / (1 + v) is guided by `cfg_weight` as usual.
    """

    cfg_weight: float
    image_weight: float
    rows: ClassVar[int] = 3

    def mix(self, logits: Floats) -> Floats:
        both, features, uncond = logits[0::3], logits[1::3], logits[2::3]
        cond: Floats = np.add(both, np.float32(self.image_weight) * features, dtype=np.float32) / np.float32(1 + self.image_weight)
        scores: Floats = uncond + np.float32(self.cfg_weight) * (cond - uncond)
        return scores


def pair(cond: list[Row], uncond: list[Row]) -> list[Row]:
    """n and n rows -> 2n rows as `Pairs` takes them."""
    return [row for rows in zip(cond, uncond, strict=True) for row in rows]
