"""Arrays of the host that are as large as they may ever be, and take memory only where they were written."""

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class HostMemory:
    """Zeros in `array`. Pages are small ones: with large ones, as NumPy asks for, every head of a cache would round up to 2 MB.

    Raises MemoryError.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        size = int(np.prod(shape)) * dtype.itemsize
        try:
            self._pages = mmap.mmap(-1, max(size, 1), **_PRIVATE)
        except OSError as error:
            raise MemoryError(f"{size / 1e6:.0f} MB of a KV cache: {error.strerror}") from None
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._pages.madvise(mmap.MADV_NOHUGEPAGE)
        self.array: NDArray[Any] = np.frombuffer(self._pages, dtype, int(np.prod(shape))).reshape(shape)

    def forget(self, begin: int, end: int, of: int) -> None:
        """Gives back the whole pages among parts `begin` to `end` of `of` equal ones. What is there afterwards is undefined."""
        if not hasattr(mmap, "MADV_DONTNEED") or begin >= end:
            return
        each = self.array.nbytes // of
        first = -(-begin * each // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end * each // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._pages.madvise(mmap.MADV_DONTNEED, first, last - first)
