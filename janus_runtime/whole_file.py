"""Files that are whole or absent: written aside under a name that no other writer has, then given their own."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_part(path: Path) -> Iterator[BinaryIO]:
    """A new hidden file beside `path`, to be written and then named by one of the functions below; else it is removed. Raises OSError.

    Its name is random: writers in containers that share a folder may have equal process ids. Its mode follows the umask.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    with part.open("xb") as file:
        try:
            yield file
        finally:
            part.unlink(missing_ok=True)


def rename_over(file: BinaryIO, path: Path) -> None:
    """Gives a finished part file the name `path`, in place of what has it. Raises OSError."""
    _flush(file)
    os.replace(file.name, path)


def rename_new(file: BinaryIO, path: Path) -> None:
    """Gives a finished part file the name `path`. Raises FileExistsError if the name is taken or being taken, and OSError."""
    _flush(file)
    try:
        os.link(file.name, path)
    except FileExistsError:
        raise
    except OSError:
        _claim(Path(file.name), path)


def _claim(part: Path, path: Path) -> None:
    """A file system without hard links renames over what is there. So a writer first claims the name, with a file that is not it."""
    claim = path.with_name(f".{path.name}.claim")
    claim.open("xb").close()
    try:
        if path.exists():
            raise FileExistsError(f"{path} exists")
        os.rename(part, path)
    finally:
        claim.unlink()


def _flush(file: BinaryIO) -> None:
    """To the disk, for a name must not outlive a crash that its contents do not."""
    file.flush()
    os.fsync(file.fileno())
