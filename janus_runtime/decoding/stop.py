"""RunStop: ends one run of a graph from another thread, where a step takes seconds and its caller is gone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class RunStopped(Exception):
    """A run ended early, and gave nothing."""


class RunStop:
    """Of one run. `set` may come before it, during it, or after it, when it does nothing."""

    def __init__(self) -> None:
        self.is_set = False
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None

    def set(self) -> None:
        with self._lock:
            self.is_set = True
            if self._end is not None:
                self._end()

    @contextmanager
    def watching(self, end: Callable[[], None]) -> Iterator[None]:
        """A run: `end` is called, by another thread, when it is to end. Raises RunStopped if it need not begin."""
        with self._lock:
            if self.is_set:
                raise RunStopped
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None
