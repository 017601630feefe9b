"""Scheduler: many requests over one model. Their lanes join and leave between steps.

One thread at a time runs calls of the decoder. It lives while there are requests; encoders and pixel decoders run beside it.
"""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..errors import Busy, JanusError, TooLarge
from .engines import Engines
from .lane import Counts, Lane, Lanes, Request, as_error

# Pictures that wait for their pixels before partial ones are left out.
_MANY_BESIDE = 8


@dataclass(frozen=True)
class Limits:
    """Rows of the decoder and bytes of its cache that may be in use at once, and requests that may wait; None: as many as come.
    `retained_bytes` of the cache may be kept of requests that are over."""

    max_rows: int | None = None
    memory_bytes: int | None = None
    max_queue: int | None = None
    retained_bytes: int = 256 * 2**20


@dataclass(frozen=True)
class Status:
    """`rows` and `cache_bytes` are in use, a token of a row takes `token_bytes`; the last four are counted since the model was loaded."""

    running: int
    waiting: int
    rows: int
    max_rows: int | None
    cache_bytes: int
    memory_bytes: int | None
    token_bytes: int
    steps: int
    stepped_rows: int
    prefilled_tokens: int
    reused_tokens: int


class Scheduler:
    """`submit` a request, and its events come. Safe to share by threads."""

    def __init__(self, engines: Engines, limits: Limits) -> None:
        self.limits = limits
        self._engines = engines
        # Requests in order of arrival, until they are over; owned by the lock, the rest by the thread that runs.
        self._requests: list[Request] = []
        self._prepared: set[Request] = set()
        self._calls: list[Callable[[], None]] = []
        self._lanes: dict[Hashable, list[Lanes]] = {}
        self._counted = Counts()
        self._changed = threading.Condition()
        self._is_awake = False
        self._thread: threading.Thread | None = None
        self._closed = False
        self._num_beside = self._num_encoding = 0
        self._beside = {kind: ThreadPoolExecutor(1, f"janus-{kind}") for kind in ("prepare", "finish")}

    def submit(self, request: Request) -> None:
        """Raises Busy where too many wait, JanusError once the model is closed."""
        self._engines.check_usable()
        with self._changed:
            self._check_open()
            waiting = sum(not each.has_started and not each.is_over for each in self._requests)
            if self.limits.max_queue is not None and waiting >= self.limits.max_queue:
                raise Busy(f"{waiting} requests wait already, as many as may; try again later", self._guess_wait())
            request.handle.bind(self.wake)
            self._requests.append(request)
            self._wake()

    def soon(self, work: Callable[[], None]) -> None:
        """`work` between two steps, now where nothing runs. For what belongs to the thread that runs; it must not wait."""
        if self._engines.is_forked:
            return
        with self._changed:
            if self._thread is not None:
                self._calls.append(work)
                self._wake()
            elif not self._closed:
                work()
                self._close_idle()

    def wake(self) -> None:
        """Something changed that the next step may care about."""
        if self._engines.is_forked:
            return
        with self._changed:
            if self._requests:
                self._wake()

    def status(self) -> Status:
        with self._changed:
            lanes, counts = self._all(), Counts()
            for each in (self._counted, *(lane.counts for lane in lanes)):
                counts.add(each)
            running = sum(request.has_started for request in self._requests)
            return Status(
                running=running,
                waiting=len(self._requests) - running,
                rows=sum(each.rows for each in lanes),
                max_rows=self.limits.max_rows,
                cache_bytes=sum(each.cache_bytes for each in lanes),
                memory_bytes=self.limits.memory_bytes,
                token_bytes=self._engines.token_bytes,
                **vars(counts),
            )

    def find(self, kind: Hashable) -> Lanes | None:
        """The lanes of this kind, where there are any."""
        return next(iter(self._lanes.get(kind, ())), None)

    def close(self) -> None:
        """Ends every request and frees all caches. In a forked process it does nothing."""
        if self._engines.is_forked:
            return
        with self._changed:
            self._closed = True
            thread, requests = self._thread, list(self._requests)
            self._wake()
        # A call that takes seconds ends with those who are in it.
        for request in requests:
            request.handle.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        for executor in self._beside.values():
            executor.shutdown(wait=True, cancel_futures=True)
        for kind in self._lanes.values():
            for lanes in kind:
                lanes.close()
        self._lanes.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise JanusError("this model is closed; load it again")

    def _wake(self) -> None:
        """The caller holds the lock."""
        self._is_awake = True
        if self._thread is None and not (self._closed and not self._requests):
            self._thread = threading.Thread(target=self._run, name="janus-steps", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _guess_wait(self) -> float:
        """Seconds until somebody who runs may be done: as long as the oldest has taken so far."""
        return min(max(time.perf_counter() - self._requests[0].submitted, 1.0), 60.0) if self._requests else 1.0

    def _run(self) -> None:
        while self._wait():
            try:
                self._step()
            except Exception as error:  # A fault of ours must end requests, not leave them hanging.
                for request in list(self._requests):
                    request.fail(as_error(error))

    def _wait(self) -> bool:
        """Until there is something to do -> False where nothing is left to wait for."""
        with self._changed:
            while not self._is_awake and not self._calls and not any(lanes.is_busy for lanes in self._all()):
                if not self._requests:
                    self._thread = None
                    return False
                self._changed.wait(self._seconds_to_deadline())
                self._is_awake = self._is_awake or self._seconds_to_deadline() == 0
            self._is_awake = False
            return True

    def _seconds_to_deadline(self) -> float | None:
        deadlines = [request.deadline for request in self._requests if request.deadline is not None and not request.is_over]
        return max(min(deadlines) - time.perf_counter(), 0.0) if deadlines else None

    def _all(self) -> list[Lanes]:
        # `status` asks while the thread that runs opens and closes lanes.
        return [lanes for kind in list(self._lanes.values()) for lanes in list(kind)]

    def _step(self) -> None:
        """Who ended leaves, who fits joins, and all take a step."""
        with self._changed:
            calls, self._calls = self._calls, []
        for call in calls:
            call()
        self._drop_ended()
        self._admit()
        began = time.perf_counter()
        for lanes in self._all():
            if lanes.is_busy:
                for lane in lanes.advance():
                    self._finish(lane)
        self._close_idle()
        with self._changed:
            # Beside steps an encoder has half of the machine; with this pause, two thirds of the time, as a prompt that is computed has.
            if self._num_encoding:
                self._changed.wait_for(lambda: not self._num_encoding or self._closed, time.perf_counter() - began)
        for ahead, request in enumerate([request for request in list(self._requests) if not request.has_started]):
            request.wait(ahead)

    def _drop_ended(self) -> None:
        if self._closed:
            for request in list(self._requests):
                request.fail(JanusError("this model is closed; load it again"))
        for request in list(self._requests):
            request.check()
            if request.is_over:
                for lanes in self._all():
                    lanes.drop(request)
                request.lanes.clear()
                with self._changed:
                    self._requests.remove(request)
                    self._prepared.discard(request)

    def _admit(self) -> None:
        """Lanes join, those of the request first that has the fewest, then in order of arrival. Nobody is passed over for being large."""
        blocked = False
        while not blocked:
            with self._changed:
                ordered = sorted(self._requests, key=lambda request: len(request.lanes))
            for request in ordered:
                if request not in self._prepared:
                    self._prepare(request)
                elif lane := self._offer(request):
                    blocked = not self._join(lane)
                    break
            else:
                return

    def _prepare(self, request: Request) -> None:
        """Once for each request. What takes no longer than a step is done at once."""
        if request.is_preparing:
            return
        request.is_preparing = True

        def prepare() -> None:
            try:
                if not request.is_over:
                    request.prepare()
            except Exception as error:
                request.fail(as_error(error))
            with self._changed:
                if not request.is_over:
                    self._prepared.add(request)
                    self._wake()

        def encode() -> None:
            try:
                prepare()
            finally:
                with self._changed:
                    self._num_encoding -= 1
                    self._changed.notify_all()

        if request.needs_encoder:
            with self._changed:
                self._num_encoding += 1
            self._beside["prepare"].submit(encode)
        else:
            prepare()

    def _offer(self, request: Request) -> Lane | None:
        """A request's next lane, which it offers until it is taken."""
        if request.offered is None and not request.is_over:
            request.offered = request.next_lane()
        return request.offered

    def _join(self, lane: Lane) -> bool:
        """Takes a lane in where there is room for it."""
        request = lane.request
        try:
            joined = self._find_room(lane)
            if not joined and not any(lanes.is_busy for lanes in self._all()):
                # Nobody is there to wait for: rows that are left are those of conversations, which nobody may ever close.
                held = sum(lanes.rows for lanes in self._all())
                raise TooLarge(
                    f"{lane.num_rows} rows of {lane.length} tokens were asked for at once, more than may be in use: "
                    f"{self.limits.max_rows} rows and {self.limits.memory_bytes} bytes of cache"
                    + (f", of which open conversations hold {held} rows; close one" if held else "")
                )
        except Exception as error:
            request.offered = None
            request.fail(as_error(error))
            self._drop_ended()
            return True
        if joined:
            request.offered = None
            request.lanes.append(lane)
            request.start()
        return joined

    def _find_room(self, lane: Lane) -> bool:
        """Among lanes of its kind, or among new ones where those may be several."""
        most, own = self.limits.max_rows, self._lanes.setdefault(lane.kind, [])
        if not lane.continues and most is not None and sum(each.rows for each in self._all()) + lane.num_rows > most:
            return False
        if any(each.admit(lane, self._memory_of(each)) for each in own):
            return True
        if any(each.is_kept for each in own):
            return False
        own.append(lane.open(most))
        return own[-1].admit(lane, self._memory_of(own[-1]))

    def _memory_of(self, lanes: Lanes) -> int | None:
        """Bytes of cache that these lanes may use beside all others."""
        if self.limits.memory_bytes is None:
            return None
        return max(self.limits.memory_bytes - sum(each.cache_bytes for each in self._all() if each is not lanes), 0)

    def _finish(self, lane: Lane) -> None:
        lane.request.lanes.remove(lane)
        work = lane.request.finish(lane)
        if work is not None:
            self._do_beside(lane.request, work)

    def show_beside(self, request: Request, work: Callable[[], None]) -> None:
        """What is welcome and not needed; left out where much waits for that thread."""
        if self._num_beside < _MANY_BESIDE:
            self._do_beside(request, work)

    def _do_beside(self, request: Request, work: Callable[[], None]) -> None:
        """Pixels of a picture, one at a time: activations are large."""

        def run() -> None:
            try:
                if not request.is_over:
                    work()
            except Exception as error:
                request.fail(as_error(error))
            with self._changed:
                self._num_beside -= 1
            self.wake()

        with self._changed:
            self._num_beside += 1
        self._beside["finish"].submit(run)

    def _close_idle(self) -> None:
        """Lanes that have nothing to keep."""
        for kind, all_lanes in list(self._lanes.items()):
            for lanes in list(all_lanes):
                if not lanes.is_kept and not lanes.is_busy and not lanes.rows:
                    self._counted.add(lanes.counts)
                    lanes.close()
                    all_lanes.remove(lanes)
            if not all_lanes:
                del self._lanes[kind]
