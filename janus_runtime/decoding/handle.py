"""Handle: what a caller holds of a request that was submitted."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import JanusError
from ..events import Event, Failed, Finished

Post = Callable[[Event], None]

# How often a caller who may be told to stop looks whether he was.
_LOOK_SECONDS = 0.05


class Handle:
    """Events go to `post`, from other threads and in order, or, without one, to whoever iterates over `events`."""

    def __init__(self, post: Post | None = None) -> None:
        self._queue: SimpleQueue[Event] = SimpleQueue()
        self.post: Post = post or self._queue.put
        self.cancelled = False
        self._pid = os.getpid()
        self._wake: Callable[[], None] = lambda: None
        self._on_cancel: Callable[[], None] = lambda: None

    def bind(self, wake: Callable[[], None]) -> None:
        """`wake` tells the scheduler that something changed."""
        self._wake = wake

    @contextmanager
    def watching(self, on_cancel: Callable[[], None]) -> Iterator[None]:
        """Has `on_cancel` called, from any thread, if the request is cancelled meanwhile or was before."""
        self._on_cancel = on_cancel
        try:
            if self.cancelled:
                on_cancel()
            yield
        finally:
            self._on_cancel = lambda: None

    def cancel(self) -> None:
        """Ends the request at its next step, from any thread, or within a long one where nobody else is in it; the last event is then
        `Failed` with `Cancelled`, unless it was done."""
        self.cancelled = True
        self._on_cancel()
        self._wake()

    def wake(self) -> None:
        self._wake()

    def events(self, cancel: threading.Event | None = None) -> Iterator[Event]:
        """Yields events until the last, in the caller's thread. Raises the error of `Failed`. Ends early where `cancel` is set; the request
        goes on then until it is cancelled."""
        while cancel is None or not cancel.is_set():
            if os.getpid() != self._pid:
                raise JanusError("this request was submitted before the process was forked; load the model in the process that uses it")
            event = self._next(cancel)
            if isinstance(event, Failed):
                raise event.error
            if event is not None:
                yield event
            if isinstance(event, Finished):
                return

    def _next(self, cancel: Any) -> Event | None:
        if cancel is None:
            return self._queue.get()
        try:
            return self._queue.get(timeout=_LOOK_SECONDS)
        except Empty:
            return None
