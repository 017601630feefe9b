"""Writers of one folder, at the moments at which they could meet."""

import fcntl

import pytest

from janus_export.atomic_folder import MARK, aside
from janus_runtime.errors import JanusError


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
