"""A folder that is whole or absent: written aside, then renamed. A killed writer leaves a `.<name>.part` that the next one clears."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from janus_runtime.errors import JanusError

# In a folder that is being written, so that a later writer knows it for one of ours.
MARK = ".writing"


@contextmanager
def aside(
    out: Path, verb: str, ours: Callable[[Path], bool] = lambda folder: True, check: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """A folder beside `out` that takes its place if all goes well and vanishes if not. One writer at a time.

    `verb` is what the user does: export, build. `ours` says whether a left-over folder may be removed, and `check` raises where `out`
    may not be replaced. Raises JanusError, OSError.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    part, old = (out.parent / f".{out.name}.{suffix}" for suffix in ("part", "old"))
    if part.is_symlink() or (part.exists() and not (part / MARK).is_file()) or (old.exists() and not ours(old)):
        raise JanusError(f"{part} or {old} is in the way and not ours; move it")
    part.mkdir(exist_ok=True)
    (part / MARK).touch()
    lock = os.open(part, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = part.exists() and os.path.samestat(os.fstat(lock), part.stat())
        except BlockingIOError:
            held = False
        # A writer that ends between our open and our lock renames the folder that we then hold: the name may be another's by now.
        if not held:
            raise JanusError(f"another {verb} is writing {out}; wait for it")
        try:
            if old.exists() and not out.exists():
                # Killed between the two renames below.
                os.rename(old, out)
            shutil.rmtree(old, ignore_errors=True)
            check()
            for path in part.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != MARK:
                    path.unlink()
            yield part
            check()
            (part / MARK).unlink()
            if out.exists():
                os.rename(out, old)
            os.rename(part, out)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise JanusError(
                    f"the disk of {out.parent} is full and nothing of {out.name} was kept; make room and {verb} again"
                ) from None
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        os.close(lock)
