"""A request's work: what the model computes for it, as events on the event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import Protocol, TypeVar

from starlette.types import Receive

from ..decoding.handle import Post
from ..errors import Cancelled
from ..events import Event, Failed, Finished
from .api_error import ClientGone, submit_error
from .metrics import Meter
from .traffic import Cancellable, Traffic

Result = TypeVar("Result")


class Start(Protocol):
    """A method of the model that submits a request, with all its arguments but this one."""

    def __call__(self, *, post: Post) -> Awaitable[Cancellable]: ...


class Work:
    """Parts of one request, each submitted to the model once; ends when all have ended. `close` ends it early and frees its rows."""

    def __init__(self, traffic: Traffic, meter: Meter) -> None:
        self.meter = meter
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._handles: list[Cancellable] = []
        self._running: set[int] = set()
        self._stopped: set[int] = set()
        self._closed = False
        traffic.working.add(self)

    async def submit(self, start: Start) -> None:
        """Adds a part. Raises ApiError if the model does not take it; the parts before it are then cancelled."""
        number = len(self._handles)
        try:
            # Not lost where this task is cancelled while the model goes on: `_add` cancels what comes too late.
            await asyncio.shield(asyncio.create_task(self._add(number, start)))
        except Exception as error:
            self.meter.refuse()
            self.close()
            raise submit_error(error) from error
        except BaseException:
            self.close()
            raise

    async def _add(self, number: int, start: Start) -> None:
        self._running.add(number)
        try:
            handle = await start(post=partial(self._post, number))
        except Exception:
            self._running.discard(number)
            if self._closed:
                return
            raise
        self._handles.append(handle)
        if self._closed:
            handle.cancel()

    def _post(self, number: int, event: Event) -> None:
        # The loop is closed where the server has ended: nobody is left to hear of it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, (number, event))

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """(part, event) until every part has ended. Raises a part's error, except of one that `stop` ended."""
        while self._running:
            number, event = await self._events.get()
            self.meter.see(number, event, stopped=number in self._stopped)
            if isinstance(event, Finished | Failed):
                self._running.discard(number)
            if isinstance(event, Failed) and not (number in self._stopped and isinstance(event.error, Cancelled)):
                raise event.error
            yield number, event

    def stop(self, number: int) -> None:
        """Ends a part that has given enough. It still comes to its last event, which may be Failed."""
        self._stopped.add(number)
        self._handles[number].cancel()

    def cancel(self) -> None:
        """Ends every part; `events` then raises."""
        for number in tuple(self._running):
            if number < len(self._handles):
                self._handles[number].cancel()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._traffic.working.discard(self)
        self.cancel()
        self.meter.close(unfinished=bool(self._running))


async def until_gone(receive: Receive, coroutine: Awaitable[Result]) -> Result:
    """What `coroutine` gives, for as long as the client is there: else cancels it and raises ClientGone.

    To be called when the request's body was received.
    """
    task, gone = asyncio.ensure_future(coroutine), asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
