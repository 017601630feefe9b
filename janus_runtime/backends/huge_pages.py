"""Weights in pages of 2 MB: a step reads all of them once, and in large pages it looks up fewer addresses on the way.

Linux gives such pages to memory that asks for them, and a library cannot have another library's memory ask in time. So they are
asked for afterwards: MADV_COLLAPSE, since Linux 6.1, moves what is there into large pages at once. Elsewhere nothing happens.
"""

import ctypes
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

Ranges = list[tuple[int, int]]

_MADV_COLLAPSE = 25  # linux/mman.h
_PAGE = 2 << 20
# Of what came while a graph was opened: smaller pieces are its bookkeeping.
_SMALLEST = 4 * _PAGE


@contextmanager
def huge_pages() -> Iterator[None]:
    """Moves the memory that was allocated inside into large pages, as far as the system has some."""
    before = anonymous_ranges()
    yield
    if not before:
        return  # the system does not tell
    for start, end in subtract(anonymous_ranges(), before):
        first, last = -(-start // _PAGE) * _PAGE, end // _PAGE * _PAGE
        if last - first >= _SMALLEST and not _collapse(first, last - first):
            return


def anonymous_ranges() -> Ranges:
    """Start and end of this process's private writable memory that is no file's, in order; empty where the system does not tell."""
    if sys.platform != "linux":
        return []
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
            found = [line.split(maxsplit=5) for line in lines]
    except OSError:
        return []
    own: tuple[list[str], ...] = ([], ["[heap]\n"])  # names of what is no file's and not the system's
    private = (parts[0].split("-") for parts in found if parts[1] == "rw-p" and parts[4] == "0" and parts[5:] in own)
    return [(int(start, 16), int(end, 16)) for start, end in private]


def subtract(ranges: Ranges, others: Ranges) -> Ranges:
    """What is in `ranges` and not in `others`, both in order and without overlaps."""
    left: Ranges = []
    for start, end in ranges:
        for taken_from, taken_to in others:
            if taken_to <= start or taken_from >= end:
                continue
            if taken_from > start:
                left.append((start, taken_from))
            start = min(taken_to, end)
        if start < end:
            left.append((start, end))
    return left


def _collapse(start: int, length: int) -> bool:
    """False where this system never will: the call is unknown to it, or large pages are off."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # Out of large pages it moves what it can (EAGAIN, ENOMEM).
    return libc.madvise(start, length, _MADV_COLLAPSE) == 0 or ctypes.get_errno() != errno.EINVAL
