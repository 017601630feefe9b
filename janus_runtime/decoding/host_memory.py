"""Arrays of the host that are as large as they may ever be, and take memory only where they were written."""

import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

_lock = threading.Lock()
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class HostMemory:
    """Zeros in `array`. Pages are small ones: with large ones, as NumPy asks for, every head of a cache would round up to 2 MB.

    Raises MemoryError.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        size = int(np.prod(shape)) * dtype.itemsize
        with _lock:
            try:
                self._pages = mmap.mmap(-1, max(size, 1), **_PRIVATE)
            except OSError as error:
                raise MemoryError(f"{size / 1e6:.0f} MB of a KV cache: {error.strerror}") from None
            if hasattr(mmap, "MADV_NOHUGEPAGE"):
                self._pages.madvise(mmap.MADV_NOHUGEPAGE)
            self.array: NDArray[Any] = np.frombuffer(self._pages, dtype, int(np.prod(shape))).reshape(shape)
            _living.add(self)

    def forget(self, begin: int, end: int, of: int) -> None:
        """Gives back the whole pages among parts `begin` to `end` of `of` equal ones. What is there afterwards is undefined."""
        if not hasattr(mmap, "MADV_DONTNEED") or begin >= end:
            return
        each = self.array.nbytes // of
        first = -(-begin * each // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end * each // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._pages.madvise(mmap.MADV_DONTNEED, first, last - first)


_living: WeakSet[HostMemory] = WeakSet()


def _unlock() -> None:
    """In a forked process: who held the lock is not there to give it back."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


@contextmanager
def small_pages() -> Iterator[list[tuple[int, int]]]:
    """Start and end of the memory of every HostMemory, in order; none comes inside."""
    with _lock:
        places = ((memory.array.__array_interface__["data"][0], memory.array.nbytes) for memory in list(_living))
        yield sorted((start, start + size) for start, size in places)
