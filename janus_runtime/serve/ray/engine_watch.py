"""Whether a model replica's engine works: not stuck in a call, and not failing every request."""

import time

from ...decoding.scheduler import Status

# A look that comes later than this was held up with everything else, by a debugger or a machine that slept.
_LONGEST_LOOK_S = 5.0


class EngineWatch:
    """Look often. Of one thread."""

    def __init__(self, stuck_s: float, max_faults: int = 3) -> None:
        self._stuck_s = stuck_s
        self._max_faults = max_faults
        self._faults = 0
        self._done: tuple[int, ...] = ()
        self._looked = time.monotonic()
        self._idle_s = 0.0

    def look(self, status: Status, num_events: int) -> None:
        """`num_events`: those that requests have had so far. Encoders and pixels take no step, but end with an event."""
        now = time.monotonic()
        done = (status.steps, status.prefilled_tokens, status.reused_tokens, num_events)
        busy = status.running + status.waiting > 0
        self._idle_s = self._idle_s + min(now - self._looked, _LONGEST_LOOK_S) if busy and done == self._done else 0.0
        self._done, self._looked = done, now

    def see_end(self, is_fault: bool) -> None:
        """A request ended, by a fault of the engine or otherwise."""
        self._faults = self._faults + 1 if is_fault else 0

    @property
    def complaint(self) -> str | None:
        """What is wrong; None while all is well."""
        if self._idle_s > self._stuck_s:
            return f"the engine has had requests and done nothing for {self._idle_s:.0f} s"
        if self._faults >= self._max_faults:
            return f"the engine failed the last {self._faults} requests"
        return None
