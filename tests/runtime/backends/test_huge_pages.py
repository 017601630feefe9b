"""Large pages for weights: which memory is moved, and that it is."""

import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from janus_runtime.backends import huge_pages as module
from janus_runtime.backends.huge_pages import anonymous_ranges, huge_pages, subtract
from janus_runtime.decoding.host_memory import HostMemory, small_pages

linux = pytest.mark.skipif(sys.platform != "linux", reason="the system tells what memory there is on Linux alone")


def ranges_of(points):
    """Sorted distinct points -> ranges without overlaps; neighbours may touch."""
    ordered = sorted(points)
    return list(zip(ordered[::2], ordered[1::2], strict=False))


RANGES = st.sets(st.integers(0, 60), max_size=12).map(ranges_of)


@given(RANGES, RANGES)
def test_a_difference_is_that_of_the_addresses(ranges, others):
    def addresses(found):
        return {address for start, end in found for address in range(start, end)}

    left = subtract(ranges, others)
    assert addresses(left) == addresses(ranges) - addresses(others)
    assert all(start < end for start, end in left) and left == sorted(left)


@linux
def test_private_writable_memory_is_found_and_that_of_files_is_not(tmp_path):
    before = anonymous_ranges()
    (tmp_path / "file").write_bytes(bytes(16 << 20))
    with mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE) as private, (tmp_path / "file").open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:
            private[0] = mapped[0] = 1
            sizes = [end - start for start, end in subtract(anonymous_ranges(), before)]
    assert 16 << 20 <= max(sizes) < 32 << 20


@linux
@pytest.mark.parametrize("pause", ["0", "1"], ids=["moved", "asked for in time"])
def test_what_was_allocated_inside_is_in_large_pages(tmp_path, pause):
    program = tmp_path / "program.py"
    program.write_text(
        "import mmap, sys, time\n"
        "from janus_runtime.backends.huge_pages import huge_pages\n"
        "def large():\n"
        "    lines = open('/proc/self/smaps_rollup').read().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('AnonHugePages'))\n"
        "with huge_pages():\n"
        "    memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE)\n"
        "    time.sleep(float(sys.argv[1]))\n"
        "    memory.write(bytes([7]) * (64 << 20))\n"
        "    early = large()\n"
        "print(early, large(), memory[:] == bytes([7]) * (64 << 20))\n"
    )
    result = subprocess.run(
        [sys.executable, program, pause], capture_output=True, text=True, cwd=Path(__file__).parents[3], env={"PYTHONPATH": "."}
    )
    assert result.returncode == 0, result.stderr
    early, kilobytes, unchanged = result.stdout.split()
    assert unchanged == "True"
    if int(kilobytes) == 0:
        pytest.skip("this system gives no large pages")
    assert int(kilobytes) >= 32 << 10
    if pause == "1":
        assert int(early) >= 32 << 10


@linux
def test_a_cache_keeps_its_small_pages(monkeypatch):
    """With large ones every head of a cache that holds a few tokens would take 2 MB."""
    asked = []
    monkeypatch.setattr(module, "_madvise", lambda start, length, advice: asked.append((start, start + length)) or True)
    with huge_pages():
        cache = HostMemory([64 << 20], np.dtype(np.int8))
        other = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE)
        time.sleep(0.1)
    place, other_place = (np.frombuffer(each, np.int8).__array_interface__["data"][0] for each in (cache.array, other))
    assert any(start <= other_place + (32 << 20) < end for start, end in asked)
    assert not any(start < place + (64 << 20) and end > place for start, end in asked)


@linux
@pytest.mark.parametrize("errno", [22, 12])
def test_a_system_without_large_pages_is_no_error(monkeypatch, errno):
    """EINVAL: none ever, so one question is enough. ENOMEM: perhaps further on."""
    madvise = Mock(return_value=-1)
    monkeypatch.setattr(module.ctypes, "CDLL", lambda *arguments, **options: Mock(madvise=madvise))
    monkeypatch.setattr(module.ctypes, "get_errno", lambda: errno)
    monkeypatch.setattr(module, "_PAUSE_S", 60)
    monkeypatch.setattr(module, "anonymous_ranges", iter([[(0, 1)], [(0, 64 << 20), (128 << 20, 256 << 20)]]).__next__)
    with huge_pages():
        pass
    assert madvise.call_count == (1 if errno == 22 else 2)


def test_another_system_is_left_alone(monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert anonymous_ranges() == []
    with huge_pages():
        pass


def test_without_a_look_before_nothing_is_moved(monkeypatch):
    """All memory of the process would seem new."""
    monkeypatch.setattr(module, "anonymous_ranges", iter([[], [(0, 64 << 20)]]).__next__)
    monkeypatch.setattr(module, "_madvise", Mock(side_effect=AssertionError))
    with huge_pages():
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_caches_are_looked_at_leaves_no_lock():
    with small_pages():
        if (child := os.fork()) == 0:
            signal.alarm(20)
            try:
                HostMemory([1], np.dtype(np.int8))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
