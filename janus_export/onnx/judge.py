"""Which products bear one scale a column: measured on the weights in hand, while the reference runs.

Letters: T tokens, K inputs of a matrix, N outputs of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..precision import Blocks
from ..recipes import FromCheckpoint
from .blocks import grouped, quantise

# By how much the error of a product may grow beside that of the same matrix in blocks. With weights and activations of a bell curve
# it grows by 1.3; one channel that is a hundred times as large as the others makes it ten times as large.
LIMIT = 2.0
HELPS = 0.75  # of the error without smoothing, for it to be worth other norms
_BLOCKS = Blocks(8, 128)
_COLUMNS = 512  # of a matrix that are looked at, evenly spread: all columns see the same activations


@dataclass(frozen=True, eq=False)
class Smoothing:
    """SmoothQuant: activations are divided by `factors` [K] in the norm before a matrix, whose rows are multiplied by them.

    Powers of two, so that no weight changes but for its exponent.
    """

    factors: NDArray[np.float32]


@dataclass
class Judgement:
    """Relative errors of a product, quadratic means over tokens: with a scale a column, the same smoothed, and in blocks."""

    smoothing: Smoothing
    column: float = 0.0
    smoothed: float = 0.0
    block: float = 0.0

    def choose(self, can_smooth: bool) -> tuple[bool, Smoothing | None]:
        """Whether the matrix gets a scale a column, and how it is smoothed for it."""
        smooth = can_smooth and self.smoothed < HELPS * self.column
        if (self.smoothed if smooth else self.column) > LIMIT * self.block:
            return False, None
        return True, self.smoothing if smooth else None


class ProductJudge:
    """`watch` is called with every product of the reference's run; `found` has what came of it, for each of `matrices`."""

    def __init__(self, matrices: Iterable[FromCheckpoint]) -> None:
        self._matrices = frozenset(matrices)
        self.found: dict[FromCheckpoint, Judgement] = {}

    def watch(self, matrix: FromCheckpoint, x: torch.Tensor, weight: torch.Tensor) -> None:
        """x [..., K] @ weight [K, N]. Of a matrix that is seen several times the largest errors count."""
        if matrix not in self._matrices:
            return
        tokens = x.reshape(-1, x.shape[-1]).numpy()
        if matrix not in self.found:
            self.found[matrix] = Judgement(Smoothing(_factors(tokens, weight.numpy())))
        judgement = self.found[matrix]
        columns = np.ascontiguousarray(weight.numpy()[:, :: -(-weight.shape[1] // _COLUMNS)])
        exact, factors = tokens @ columns, judgement.smoothing.factors
        for name, product in (
            ("column", _by_column(tokens, columns)),
            ("smoothed", _by_column((tokens / factors).astype(np.float32), columns * factors[:, None])),
            ("block", _by_block(tokens, columns)),
        ):
            setattr(judgement, name, max(getattr(judgement, name), _error(product, exact)))

    def takes(self, matrix: FromCheckpoint) -> bool:
        """Whether a scale a column may do for it, smoothed if it stands behind a norm."""
        return matrix in self.found and self.found[matrix].choose(can_smooth=True)[0]


def _factors(x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """x [T, K], weight [K, N] -> [K], the root of largest activation over largest weight of each channel, to the next power of two."""
    largest = np.abs(x).max(0), np.maximum(weight.max(1), -weight.min(1))
    known = (largest[0] > 0) & (largest[1] > 0)
    exponents = np.zeros(len(known), np.float32)
    exponents[known] = np.log2(largest[0][known] / largest[1][known]) / 2
    exponents[known] -= np.median(exponents[known]) if known.any() else 0
    factors: NDArray[np.float32] = np.exp2(np.rint(exponents)).astype(np.float32)
    return factors


def _by_column(x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """x [T, K] @ weight [K, N], 8 bits each, one scale a token and one a column."""
    result: NDArray[np.float32] = _rounded(x, 1) @ _rounded(weight, 0)
    return result


def _rounded(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """To 127 steps of the largest magnitude along `axis`."""
    step = np.maximum(np.abs(values).max(axis, keepdims=True), np.float32(1e-30)) / np.float32(127)
    result: NDArray[np.float32] = np.rint(values / step) * step
    return result


def _by_block(x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """As MatMulNBits does it: weights and activations with a scale a block."""
    codes, scales = quantise(weight.T, _BLOCKS)
    blocks = (codes.astype(np.float32) - 128) * scales[..., None]
    result: NDArray[np.float32] = _rounded(grouped(x, _BLOCKS), 2).reshape(len(x), -1) @ blocks.reshape(len(blocks), -1).T
    return result


def _error(product: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """The error of each token [N] relative to its length, as a quadratic mean over tokens: a token of large numbers hides no other."""
    square = np.square(product - exact).sum(1), np.square(exact).sum(1)
    return float(np.sqrt(np.mean(square[0] / np.maximum(square[1], 1e-30))))
