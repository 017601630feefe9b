"""Paths as they come in: made absolute once, so that a later chdir changes nothing, and refused where ONNX could not open them."""

import os
from pathlib import Path

from .errors import JanusError


def resolve_path(path: str | Path) -> Path:
    """The absolute path with links followed. Raises JanusError if it is not valid UTF-8."""
    resolved = Path(os.path.realpath(path))
    if printable(str(resolved)) != str(resolved):
        raise JanusError(f"{printable(str(resolved))} is not valid UTF-8, and ONNX and ONNX Runtime open only paths in UTF-8; rename it")
    return resolved


def printable(name: str) -> str:
    """A file's name with the bytes that are not UTF-8 spelled out, so that any stream and any JSON takes it."""
    return os.fsencode(name).decode(errors="backslashreplace")
