"""Writers of one folder: killed at any moment, and at the moments at which two could meet."""

import fcntl
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest

from janus_export import atomic_folder
from janus_export.atomic_folder import aside
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


def test_a_kill_while_the_old_folder_is_removed(tmp_path, monkeypatch):
    """Half of it must not come back under its own name when the new one is gone."""
    out = tmp_path / "out"

    def remove_half(folder):
        next(folder.iterdir()).unlink()
        raise KeyboardInterrupt

    for text in ("old", "new"):
        with pytest.raises(KeyboardInterrupt) if text == "new" else nullcontext(), aside(out, "export") as part:
            (part / "first").write_text(text)
            (part / "second").write_text(text)
            monkeypatch.setattr(atomic_folder.shutil, "rmtree", remove_half)
    monkeypatch.undo()
    assert {path.read_text() for path in out.iterdir()} == {"new"}
    shutil.rmtree(out)
    with aside(out, "export"):
        assert not out.exists()
    assert list(tmp_path.iterdir()) == [out]


def test_writers_that_start_together(tmp_path):
    """Each writes a whole folder or says that another is at it; one at least gets through."""
    out = tmp_path / "out"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, out, str(i)], stderr=subprocess.PIPE, text=True) for i in range(6)]
    errors = [writer.communicate()[1] for writer in writers]
    wrote = [writer.returncode == 0 for writer in writers]
    assert any(wrote) and all(
        ok or f"another export is writing {out}; wait for it" in error for ok, error in zip(wrote, errors, strict=True)
    )
    assert list(tmp_path.iterdir()) == [out] and len({path.read_text() for path in out.iterdir()}) == 1


def test_a_lock_file_that_its_holder_has_removed(tmp_path, monkeypatch):
    """Another writer ends between our open and our lock: what we hold is a file without a name, which excludes nobody."""
    lock = tmp_path / ".out.lock"
    flock = fcntl.flock

    def end_first(descriptor, operation):
        if operation != fcntl.LOCK_UN:
            lock.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", end_first)
    with pytest.raises(JanusError, match="another export is writing .*out; wait for it"), aside(tmp_path / "out", "export"):
        pytest.fail("two write")
