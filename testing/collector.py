"""Collector: hears the events of a request that was submitted, for tests and benchmarks."""

import threading
import time

from janus_runtime.decoding.handle import Handle
from janus_runtime.events import Drawn, Event, Failed, Finished, Partial, Progress, Said, Started


class Collector:
    """Pass `collector.post` to `submit_drawing` or `submit_answer`; `times` are seconds on the clock at which events came."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.times: list[float] = []
        self.handle: Handle | None = None
        self.on_event = lambda event: None
        self._done = threading.Event()

    def post(self, event: Event) -> None:
        self.events.append(event)
        self.times.append(time.perf_counter())
        self.on_event(event)
        if isinstance(event, Finished | Failed):
            self._done.set()

    def wait(self, seconds: float = 120.0) -> "Collector":
        assert self._done.wait(seconds), f"no end after {seconds} s; so far {[type(event).__name__ for event in self.events]}"
        return self

    @property
    def error(self) -> Exception | None:
        return next((event.error for event in self.events if isinstance(event, Failed)), None)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Said))

    @property
    def text_ids(self) -> list[int]:
        return [token for event in self.events if isinstance(event, Said) for token in event.text_ids]

    @property
    def finished(self) -> Finished:
        (event,) = [event for event in self.events if isinstance(event, Finished)]
        return event

    @property
    def pictures(self) -> list:
        """In order."""
        drawn = {event.number: event.picture for event in self.events if isinstance(event, Drawn)}
        return [drawn[number] for number in sorted(drawn)]

    @property
    def partials(self) -> list[Partial]:
        return [event for event in self.events if isinstance(event, Partial)]

    @property
    def progress(self) -> list[Progress]:
        return [event for event in self.events if isinstance(event, Progress)]

    def first(self, kind: type) -> float:
        """Seconds on the clock at which the first event of this kind came."""
        return next(at for event, at in zip(self.events, self.times, strict=True) if isinstance(event, kind))

    @property
    def started(self) -> Started:
        return next(event for event in self.events if isinstance(event, Started))
