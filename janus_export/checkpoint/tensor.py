"""A tensor of a checkpoint: a place in a file until it is read."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's bytes lie. `shape` in elements, `offset` in bytes.

    A matrix [rows, columns] with a `stride` lies there as [columns, rows], its columns so many elements apart.
    """

    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stride: int | None = None

    def read(self) -> np.ndarray[Any, Any]:
        """Reads the tensor into fresh memory. Raises CheckpointError if the file ends early."""
        if self.stride is not None and self.stride != self.shape[0]:
            return self._read_columns(self.stride).T
        count = int(np.prod(self.shape))
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = np.fromfile(file, self.dtype, count)
        if data.size != count:
            raise self._truncated()
        return data.reshape(self.shape) if self.stride is None else data.reshape(self.shape[::-1]).T

    def _read_columns(self, stride: int) -> np.ndarray[Any, Any]:
        data = np.empty(self.shape[::-1], self.dtype)
        with self.path.open("rb", buffering=0) as file:  # what a buffer reads ahead is not what comes next
            for index, column in enumerate(data.view(np.uint8)):
                file.seek(self.offset + index * stride * self.dtype.itemsize)
                if file.readinto(column) != column.size:
                    raise self._truncated()
        return data

    def rows(self, start: int, stop: int) -> "Tensor":
        """The part `[start:stop]` of the first axis."""
        step = 1 if self.stride is not None else int(np.prod(self.shape[1:]))
        return replace(self, offset=self.offset + start * step * self.dtype.itemsize, shape=(stop - start, *self.shape[1:]))

    def reshaped(self, *shape: int) -> "Tensor":
        return replace(self, shape=shape)

    def transposed(self) -> "Tensor":
        """A whole matrix [rows, columns] as [columns, rows]. Nothing is moved."""
        return replace(self, shape=self.shape[::-1], stride=self.shape[1] if self.stride is None else None)

    def _truncated(self) -> CheckpointError:
        return CheckpointError(f"{self.path} ends before a tensor does: truncated; fetch it again")


def lfs_hint(path: Path) -> str:
    """Why a file may hold no tensors, as a part of a message."""
    with path.open("rb") as file:
        return " (a git-lfs pointer: run 'git lfs pull')" if file.read(23) == b"version https://git-lfs" else ""
