"""A folder that is whole or absent: written aside, then renamed.

A killed writer leaves a `.<name>.part` and a `.<name>.lock`, which the next one clears.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

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
    with _only_writer(out, verb):
        if part.is_symlink() or (part.exists() and not _is_part(part)) or (old.exists() and not ours(old)):
            raise JanusError(f"{part} or {old} is in the way and not ours; move it")
        try:
            if old.exists() and not out.exists():
                # Killed between the two renames below.
                os.rename(old, out)
            check()
            _clear(part, old)
            yield part
            check()
            (part / MARK).unlink()
            if out.exists():
                os.rename(out, old)
            os.rename(part, out)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise JanusError(
                    f"the disk of {out.parent} is full and nothing of {out.name} was kept; make room and {verb} again"
                ) from None
            raise
        finally:
            # What cannot be removed now is the next writer's to clear.
            with suppress(OSError):
                if old.exists() and not out.exists():
                    os.rename(old, out)
                _clear(part, old)
                (part / MARK).unlink()
                part.rmdir()


def _is_part(folder: Path) -> bool:
    return (folder / MARK).is_file() or not any(folder.iterdir())


def _clear(part: Path, old: Path) -> None:
    """Makes `part` an empty folder with its mark. `old` is removed from inside it: half removed under its own name, it would be taken for
    a whole folder."""
    part.mkdir(exist_ok=True)
    (part / MARK).touch()
    for path in part.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
    if old.exists():
        os.rename(old, part / old.name)
        shutil.rmtree(part / old.name)


@contextmanager
def _only_writer(out: Path, verb: str) -> Iterator[None]:
    lock = FileLock(out.parent / f".{out.name}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise JanusError(f"another {verb} is writing {out}; wait for it") from None
    try:
        yield
    finally:
        # While it is held: a writer that has opened this file by now finds it unlinked and does not count it as its own.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
