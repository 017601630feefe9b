"""Which session a backend takes."""

from typing import Any

from .engine import Modality
from .engines import ENDS, Engines
from .host_session import HostSession
from .session import Session


def open_session(engines: Engines, modality: Modality, rows: int, max_length: int, grows: bool = False) -> Session:
    """A fresh session of R `rows`; its `max_length` may be less than was asked for.

    On a device all rows are of `modality`. `grows`: its length is not known before, so memory should follow what it holds; on a device
    it always does. Raises BackendError where there is no room for it.
    """
    limits = engines.backend.limits
    if limits is None:
        return HostSession(engines, rows, max_length, grows)
    # Where there is no device, none of its modules is loaded.
    from .device_loop import LoopEngines
    from .device_session import DeviceSession

    embed, head, draw = (engines[name] for name in ENDS[modality])
    parts: list[Any] = [embed, engines.language_model, head, draw]
    return DeviceSession(limits, LoopEngines(*parts), engines.loops(), rows, max_length)
