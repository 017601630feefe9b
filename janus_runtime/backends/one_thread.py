"""One thread for all calls of a library that keeps state for each thread that calls it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Result = TypeVar("Result")


class OneThread:
    """`run(work)` does `work` on this thread and returns what it gives, or raises what it raises."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name)
        self._ident = self._executor.submit(threading.get_ident).result()

    def run(self, work: Callable[[], Result]) -> Result:
        if threading.get_ident() == self._ident:
            return work()
        future = self._executor.submit(work)
        try:
            return future.result()
        except BaseException:
            # An interrupt of the caller, who may hold a lock that `work` relies on.
            wait((future,))
            raise

    def close(self) -> None:
        """Ends the thread when its work is done."""
        self._executor.shutdown()
