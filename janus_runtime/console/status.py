"""A line on stderr that shows what goes on, on a terminal only."""

import os
import sys
import time
import unicodedata
from collections.abc import Callable
from types import TracebackType

from .output import printable

_BAR = 30


class StatusLine:
    """One line that is written over and over, and cleared by `with`. Shows nothing where nobody would see it."""

    def __init__(self, quiet: bool = False) -> None:
        self.visible = not quiet and sys.stderr.isatty()
        self._shown = 0

    def show(self, text: str) -> None:
        """Replaces the line. It is cut to the terminal's present width: a longer one would scroll with every update."""
        if not self.visible:
            return
        room = self.room()
        text = _cut(printable(text), room)
        width = _width(text)
        sys.stderr.write(f"\r{text}{' ' * (min(self._shown, room) - width)}")
        sys.stderr.flush()
        self._shown = width

    def clear(self) -> None:
        """Empties the line, for other output to take its place."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = 0

    @staticmethod
    def room() -> int:
        """Columns that a line may fill. A terminal wraps when the last one is written, so that one stays free."""
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        return (columns or 80) - 1

    def __enter__(self) -> "StatusLine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.clear()


def progress_bar(line: StatusLine, label: str) -> Callable[[int, int], None]:
    """`on_step(step, total)` that draws a bar on `line`. The bar gives way first where a terminal is narrow. ASCII: one column each."""
    first = 0.0

    def show(step: int, total: int) -> None:
        nonlocal first
        # From the first step on: what comes before it, loading and prefill, says nothing about the rest.
        first = first or time.perf_counter()
        rate = (step - 1) / (time.perf_counter() - first) if step > 1 else 0.0
        counts = f"{step}/{total}" + (f" {rate:.1f}/s {(total - step) / rate:.0f}s left" if rate else "")
        size = min(_BAR, line.room() - len(f"{label} [] {counts}"))
        filled = size * step // total
        line.show(f"{label} [{'#' * filled}{'-' * (size - filled)}] {counts}" if size > 0 else f"{label} {counts}")

    return show


def _cut(text: str, columns: int) -> str:
    while _width(text) > columns:
        text = text[:-1]
    return text


def _width(text: str) -> int:
    """Columns that a terminal takes for it."""
    return sum(0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
