"""Writers of one folder: killed at any moment, and at the moments at which two could meet."""

import fcntl
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from janus_export.atomic_folder import MARK, aside
from janus_runtime.errors import JanusError

FILES = 10
WRITE = f"""
import sys, time
from pathlib import Path
from janus_export.atomic_folder import aside
with aside(Path(sys.argv[1]), "export") as folder:
    for index in range({FILES}):
        (folder / str(index)).write_text(sys.argv[2])
        time.sleep(0.02)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_no_kill_leaves_half_a_folder(tmp_path, kills):
    """SIGKILL at random times, every other one while an old folder is replaced: what is there is old or new as a whole."""

    def held(folder):
        texts = {path.read_text() for path in folder.iterdir()}
        assert len(texts) == 1 and sum(1 for _ in folder.iterdir()) == FILES
        return texts.pop()

    out, old, rng = tmp_path / "out", tmp_path / ".out.old", random.Random(0)
    start, begin = lambda text: subprocess.Popen([sys.executable, "-c", WRITE, out, text]), time.perf_counter()
    assert start("first").wait() == 0
    whole = time.perf_counter() - begin
    killed = 0
    for attempt in range(4 * kills):
        before = held(out) if out.exists() else None
        if attempt % 2 and out.exists():
            shutil.rmtree(out)
            before = None
        process = start(str(attempt))
        try:
            process.wait(rng.uniform(0.2 * whole, whole))
        except subprocess.TimeoutExpired:
            process.kill()
        code = process.wait()
        assert code in (0, -signal.SIGKILL)
        killed += code != 0
        if out.exists():
            assert held(out) in (before, str(attempt))
        elif before is not None:
            # Between the two renames of a replacement; the next writer brings it back.
            assert held(old) == before
        if killed == kills:
            break
    assert killed == kills and start("last").wait() == 0
    assert held(out) == "last" and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("third", [False, True])
def test_a_lock_on_what_is_no_longer_the_part(tmp_path, monkeypatch, third):
    """Another writer ends between our open and our lock, and perhaps a third begins: what we hold is the finished folder."""
    part, out, flock = tmp_path / ".out.part", tmp_path / "out", fcntl.flock

    def end_first(descriptor, operation):
        (part / MARK).unlink()
        part.rename(out)
        if third:
            part.mkdir()
            (part / "theirs").touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", end_first)
    with pytest.raises(JanusError, match="another export is writing .*out; wait for it"), aside(out, "export"):
        pytest.fail("two write")
    assert out.is_dir() and (part / "theirs").exists() == third
