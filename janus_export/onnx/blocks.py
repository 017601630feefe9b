"""Integer weights in blocks: how they are made, a few rows at a time.

Letters: N rows (outputs of a matrix, ids of a table), K columns (its inputs), B = K / block size, rounded up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.tensor import Tensor
from ..precision import Blocks
from ..recipes import FromCheckpoint, finite_rows_of

# Of the scale at which a block's largest magnitude has a code. With fewer bits than 8 it pays to clip it: three tries find nearly all.
_SHRUNK = (1.0, 0.85, 0.7)
_ROWS = 64  # that are fitted at once, so that they stay in the processor's cache


def quantise(rows: NDArray[np.float32], blocks: Blocks) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[N, K] -> codes [N, B, size * bits / 8], low bits first, and scales [N, B]; weight = (code - 2^(bits - 1)) * scale, to nearest."""
    zero, scales = 2 ** (blocks.bits - 1), scales_of(rows, blocks)
    values, wide = grouped(rows, blocks), scales[..., None]
    steps = np.divide(values, wide, out=np.zeros_like(values), where=wide != 0)
    codes = np.clip(np.rint(steps) + zero, 0, 2 * zero - 1).astype(np.uint8)
    return (codes[..., 0::2] | codes[..., 1::2] << 4) if blocks.bits == 4 else codes, scales


def scales_of(rows: NDArray[np.float32], blocks: Blocks) -> NDArray[np.float32]:
    """[N, K] -> [N, B], those of `quantise`, without the work of the codes.

    There is one more code below zero than above, so a block's value of largest magnitude takes the lowest and decides the sign of the
    scale. Of 4 bits the scale is the one of the least squared error that was found: in blocks of 256 it loses as little as the largest
    magnitude does in blocks of 128 (bench/NOTES.md, 21).
    """
    values = grouped(rows, blocks)
    high, low = values.max(-1), values.min(-1)
    scales: NDArray[np.float32] = np.where(high > -low, high, low) / np.float32(-(2 ** (blocks.bits - 1)))
    if blocks.bits == 4:
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            scales[part] = _fitted(values[part], scales[part], 8)
    return scales


def _fitted(values: NDArray[np.float32], scales: NDArray[np.float32], zero: int) -> NDArray[np.float32]:
    """Blocks [N, B, size] and the scales [N, B] that clip nothing -> those of least squares, for the codes of the best try.

    With codes c of weights w the best scale is sum(w c) / sum(c c), and it takes sum(w c)^2 / sum(c c) off the squared error.
    """
    best, least = scales.copy(), np.full(scales.shape, -1, np.float32)
    for factor in _SHRUNK:
        tried = scales[..., None] * np.float32(factor)
        codes = np.divide(values, tried, out=np.zeros_like(values), where=tried != 0)
        np.clip(np.rint(codes, out=codes), -zero, zero - 1, out=codes)
        match, length = np.einsum("nbk,nbk->nb", values, codes), np.einsum("nbk,nbk->nb", codes, codes)
        gain = np.divide(match * match, length, out=np.zeros_like(match), where=length > 0)
        better = (gain > least) & (length > 0)
        best[better], least[better] = (match / np.maximum(length, 1))[better], gain[better]
    return best


def grouped(rows: NDArray[np.float32], blocks: Blocks) -> NDArray[np.float32]:
    """[N, K] -> [N, B, size], the last block filled up with zeros."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % blocks.size))).reshape(len(rows), -1, blocks.size)


@dataclass(frozen=True)
class Quantised:
    """One of the two stored tensors of a quantised matrix. Both are made from the same rows, so neither waits for the other."""

    matrix: FromCheckpoint
    blocks: Blocks
    part: Literal["codes", "scales"]

    @property
    def shape(self) -> tuple[int, ...]:
        count = sum(shape[0] for _, shape in self.matrix.sources)
        groups = -(-self.matrix.sources[0][1][1] // self.blocks.size)
        return (count, groups) if self.part == "scales" else (count, groups, self.blocks.size * self.blocks.bits // 8)

    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Reads and quantises a few rows at a time. Raises CheckpointError if a value is not finite."""
        result = np.empty(self.shape, dtype)
        done = 0
        for rows in finite_rows_of(tensors, self.matrix.sources):
            result[done : done + len(rows)] = scales_of(rows, self.blocks) if self.part == "scales" else quantise(rows, self.blocks)[0]
            done += len(rows)
        return result
