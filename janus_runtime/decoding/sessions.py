"""Which session a backend takes."""

from typing import Any

from .engine import Modality
from .engines import ENDS, Engines
from .host_session import HostSession
from .session import Session
from .token_lanes import TokenLanes

# Of lanes without a limit on the host, where a row that nobody uses costs nothing.
_MANY_ROWS = 4096


def open_session(engines: Engines, modality: Modality, rows: int, max_length: int) -> Session:
    """A fresh session of R `rows`; its `max_length` may be less than was asked for. Memory follows what it holds.

    On a device all rows are of `modality`. Raises BackendError where there is no room for it.
    """
    limits = engines.backend.limits
    if limits is None:
        return HostSession(engines, rows, max_length)
    # Where there is no device, none of its modules is loaded.
    from .device_loop import LoopEngines
    from .device_session import DeviceSession

    embed, head, draw = (engines[name] if name else None for name in ENDS[modality])
    parts: list[Any] = [embed, engines.language_model, head, draw]
    return DeviceSession(limits, LoopEngines(*parts), engines.loops(), rows, max_length)


def open_token_lanes(engines: Engines, modality: Modality, rows: int, length: int, retained_bytes: int, max_rows: int | None) -> TokenLanes:
    """Lanes over a session of their own. On the host they are for all that draws ids, with room for `max_rows`; on a device for rows of
    a modality no longer than `length`, with room for `max_rows` or for `rows`, as far as the backend has that."""
    limits = engines.backend.limits
    if limits is None:
        longest = engines.manifest.language_model.max_length
        return TokenLanes(open_session(engines, modality, max_rows or _MANY_ROWS, longest), retained_bytes)
    if max_rows is not None:
        rows = min(max_rows, limits.rows[-1]) if limits.rows else max_rows
    held = next((each for each in limits.lengths if each >= length), length)
    return TokenLanes(open_session(engines, modality, rows, held), 0)
