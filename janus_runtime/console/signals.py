"""What Ctrl-C and SIGTERM do to a command."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def cancel_on_interrupt() -> Iterator[threading.Event]:
    """Gives an event that Ctrl-C sets. It no longer raises KeyboardInterrupt, which could strike in the middle of a step."""
    cancel = threading.Event()
    with _handled(signal.SIGINT, lambda *_: cancel.set()):
        yield cancel


@contextmanager
def exit_on_terminate() -> Iterator[None]:
    """SIGTERM unwinds the stack, so that files half written are removed, and gives the exit code that shells expect."""
    with _handled(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)):
        yield


@contextmanager
def _handled(number: signal.Signals, handler: Callable[[int, Any], Any]) -> Iterator[None]:
    # Python sets handlers in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
