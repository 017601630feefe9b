"""Whether a step is captured as one graph of the device, and how it goes on where a library refuses.

`JANUS_CAPTURE=0` turns capture off: steps are slower, and each call of a library fails by itself.
"""

import logging
import os
from collections.abc import Callable

from ..errors import BackendError, OutOfMemory, first_line
from .device import Device, Replay

_VARIABLE = "JANUS_CAPTURE"
_log = logging.getLogger("janus_runtime")
_refused: set[str] = set()


def capture_is_on() -> bool:
    """Raises BackendError on a value other than 0 and 1."""
    value = os.environ.get(_VARIABLE, "1")
    if value not in ("0", "1"):
        raise BackendError(f"{_VARIABLE} is {value!r}; expected 0 (no captured steps) or 1")
    return value == "1"


def capture_or_repeat(device: Device, work: Callable[[], None], library: str) -> Replay:
    """`work` as a graph of the device, or as itself, with one warning, where it cannot be captured. Raises OutOfMemory."""
    if capture_is_on():
        try:
            return device.capture(work)
        except OutOfMemory:
            raise
        except BackendError as error:
            warn_without_capture(library, error)
    return Repeat(work)


class Repeat:
    """Work that is queued call by call each time."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.launch = work

    def close(self) -> None:
        pass


def warn_without_capture(library: str, error: Exception) -> None:
    """Says once for each library that its steps are not captured."""
    if library not in _refused:
        _refused.add(library)
        _log.warning("%s could not be captured as a graph of the GPU, so steps are slower: %s", library, first_line(error))
