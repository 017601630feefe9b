"""Weights in pages of 2 MB: a step reads all of them once, and in large pages it looks up fewer addresses on the way.

Linux gives such pages to memory that asks for them, and a library cannot have another library's memory ask. So memory that comes while a
graph is opened is looked for and asked for from beside: most of it is still empty then, and is filled with large pages. What was filled
before is moved in the end: MADV_COLLAPSE, since Linux 6.1. Elsewhere nothing happens.
"""

import ctypes
import errno
import mmap
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..decoding.host_memory import small_pages

Ranges = list[tuple[int, int]]

_MADV_HUGEPAGE = getattr(mmap, "MADV_HUGEPAGE", 14)
_MADV_COLLAPSE = 25  # linux/mman.h
_PAGE = 2 << 20
# Of what came while a graph was opened: smaller pieces are its bookkeeping.
_SMALLEST = 4 * _PAGE
# Between two looks: a matrix of Janus-Pro-1B is filled in some 15 ms.
_PAUSE_S = 0.005


@contextmanager
def huge_pages() -> Iterator[None]:
    """Has the memory that is allocated inside lie in large pages, as far as the system has some."""
    before = anonymous_ranges()
    if not before:
        yield  # the system does not tell
        return
    done = threading.Event()
    watcher = threading.Thread(target=_advise_new, args=(before, done), name="huge-pages", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    _advise(subtract(anonymous_ranges(), before), _MADV_COLLAPSE)


def _advise_new(known: Ranges, done: threading.Event) -> None:
    """What comes after `known`, until it is done."""
    while not done.wait(_PAUSE_S):
        now = anonymous_ranges()
        if not _advise(subtract(now, known), _MADV_HUGEPAGE):
            return
        known = now


def _advise(ranges: Ranges, advice: int) -> bool:
    """False where this system never will: the call is unknown to it, or large pages are off."""
    with small_pages() as small:
        for start, end in subtract(ranges, small):
            first, last = -(-start // _PAGE) * _PAGE, end // _PAGE * _PAGE
            if last - first >= _SMALLEST and not _madvise(first, last - first, advice):
                return False
    return True


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


def _madvise(start: int, length: int, advice: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # Out of large pages it does what it can (EAGAIN, ENOMEM).
    return libc.madvise(start, length, advice) == 0 or ctypes.get_errno() != errno.EINVAL
