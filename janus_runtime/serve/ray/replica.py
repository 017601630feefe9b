"""A model replica: one `Janus` in a process of its own, which Ray starts, watches and stops."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator

from ray import serve

from ...errors import JanusError
from ...events import Event, Failed, Finished, Progress
from ...janus import load
from .arguments import Arguments
from .calls import Alive, Call, Description, Item, Refused, Taken, is_fault
from .engine_watch import EngineWatch
from .fleet import Stats
from .watchdog import Watchdog

_PROGRESS_S = 0.05


class ModelReplica:
    """Its public methods are called by Ray, on the replica's event loop."""

    def __init__(self, arguments: Arguments) -> None:
        """Opens the model and every graph, so that the first request is as fast as the next. Raises what `load` does."""
        self._watchdog = Watchdog(arguments.frozen_s)
        self._arguments = arguments
        self.janus = load(
            arguments.bundle,
            arguments.backend,
            max_rows=arguments.max_rows,
            memory_bytes=arguments.memory,
            max_queue=arguments.max_queue,
        )
        self.janus.preload()
        self._id = serve.get_replica_context().replica_id.unique_id
        self._rows: Counter[str] = Counter()
        self._watch = EngineWatch(arguments.stuck)
        self._num_events = 0

    async def describe(self) -> Description:
        return Description(self.janus.manifest, self.janus.backend)

    async def run(self, call: Call) -> AsyncGenerator[Item, None]:
        """Events of a call, `Taken` before them, `Alive` in pauses. Closing it frees the call's rows."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def post(event: Event) -> None:
            # The loop is closed where the process ends.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(events.put_nowait, event)

        self._rows[call.ingress] += call.rows
        handle = None
        try:
            try:
                handle = await asyncio.to_thread(call.submit, self.janus, post)
            except Exception as error:
                yield Refused(self._id, error)
                return
            yield Taken(self._id)
            async for item in self._items(events):
                yield item
        finally:
            if handle is not None:
                handle.cancel()
            self._rows[call.ingress] -= call.rows

    async def _items(self, events: "asyncio.Queue[Event]") -> AsyncGenerator[Item, None]:
        progress_at = 0.0
        while True:
            try:
                event = await asyncio.wait_for(events.get(), self._arguments.beat_s)
            except asyncio.TimeoutError:
                self._look()
                if complaint := self._watch.complaint:
                    yield Failed(JanusError(complaint))
                    return
                yield Alive()
                continue
            self._num_events += 1
            if isinstance(event, Progress) and event.step < event.total:
                # Each costs Ray a millisecond, and nobody sees more than so many.
                if time.monotonic() < progress_at:
                    continue
                progress_at = time.monotonic() + _PROGRESS_S
            yield event
            if isinstance(event, Finished | Failed):
                self._watch.see_end(isinstance(event, Failed) and is_fault(event.error))
                return

    def _look(self) -> None:
        self._watch.look(self.janus.status(), self._num_events)

    async def check_health(self) -> None:
        """Ray restarts a replica that raises here several times in a row, or does not answer."""
        self._look()
        if complaint := self._watch.complaint:
            raise JanusError(f"{complaint}; this replica is to be replaced")

    async def record_routing_stats(self) -> dict[str, object]:
        rows = {ingress: count for ingress, count in self._rows.items() if count}
        return Stats(self._arguments.max_rows, self._arguments.max_queue, rows, self.janus.status()).as_dict()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {"rows_wanted": float(self._rows.total())}
