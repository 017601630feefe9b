"""Arrays in a GPU's memory, as `device.DeviceArray` has them. Needs no CUDA."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CudaArray:
    """A contiguous piece, at address `ptr`, of the memory of `owner`, which is freed with the last view of it."""

    ptr: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __getitem__(self, index: int | slice) -> "CudaArray":
        """A view of one element of the first axis, which goes, or of a contiguous part of it. Raises IndexError."""
        if not self.shape:
            raise IndexError("got an index into an array of no axes, expected at least one axis")
        places = range(self.shape[0])[index]
        stride = math.prod(self.shape[1:]) * self.dtype.itemsize
        if isinstance(places, int):
            return CudaArray(self.ptr + places * stride, self.shape[1:], self.dtype, self.owner)
        if places.step != 1:
            raise IndexError(f"got steps of {places.step}, expected a contiguous slice")
        return CudaArray(self.ptr + places.start * stride, (len(places), *self.shape[1:]), self.dtype, self.owner)

    def reshape(self, *shape: Any) -> "CudaArray":
        """A view of the same numbers; one size may be -1, as in NumPy. Raises ValueError."""
        if len(shape) == 1 and not isinstance(shape[0], int):
            (shape,) = shape
        known = math.prod(size for size in shape if size != -1)
        full = tuple(self.size // known if size == -1 and known else size for size in shape)
        if math.prod(full) != self.size or min(full, default=0) < 0:
            raise ValueError(f"got shape {list(shape)} for an array of shape {list(self.shape)}, expected {self.size} numbers")
        return CudaArray(self.ptr, full, self.dtype, self.owner)
