"""Answers under an Idempotency-Key: a request that is sent again joins the first one, or gets its answer.

A client whose connection broke, or that gave up waiting, sends its request again and would have it computed twice. With a key the
work goes on when its client goes away, and the answer is kept for a while.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request

from .api_error import ApiError, refuse
from .settings import ServeSettings
from .work import until_gone


def refuse_key(request: Request) -> None:
    """Raises ApiError if a request for a stream has a key."""
    if "idempotency-key" in request.headers:
        raise refuse("an Idempotency-Key is for answers that are not streams; leave it or stream out", "Idempotency-Key")


@dataclass
class _Kept:
    digest: bytes
    """Of the path and the body: the same key with another is a mistake."""
    task: asyncio.Task[bytes]
    done_at: float | None = None
    num_bytes: int = 0


class Answers:
    """Of the event loop's thread. Bounded in count, in bytes and in time; the oldest go first."""

    def __init__(self, settings: ServeSettings) -> None:
        self._max_count = settings.kept_answers
        self._max_bytes = settings.kept_answer_bytes
        self._seconds = settings.kept_answer_s
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def get(self, request: Request, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `make` gives for this request, or gave for the same one. Ends early, raising ClientGone, where the client goes away."""
        key = request.headers.get("idempotency-key")
        if key is None:
            return await until_gone(request.receive, make())
        if not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
            raise refuse("the Idempotency-Key must have 1 to 255 printable characters of ASCII", "Idempotency-Key")
        body = await request.body()
        digest = await asyncio.to_thread(lambda: hashlib.sha256(request.url.path.encode() + b"\0" + body).digest())
        self._forget_old()
        kept = self._kept.get(key)
        if kept is None:
            kept = self._start(key, digest, make)
        elif kept.digest != digest:
            # A client must not try the same again.
            headers = {"x-should-retry": "false"}
            raise ApiError(409, "this Idempotency-Key was used with another body; use a new key", code="idempotency_key", headers=headers)
        return await until_gone(request.receive, asyncio.shield(kept.task))

    def _start(self, key: str, digest: bytes, make: Callable[[], Awaitable[bytes]]) -> _Kept:
        if len(self._kept) >= self._max_count and all(each.done_at is None for each in self._kept.values()):
            raise ApiError(429, f"{self._max_count} requests with an Idempotency-Key are running; try again later", code="busy")
        kept = self._kept[key] = _Kept(digest, asyncio.ensure_future(_awaited(make)))
        kept.task.add_done_callback(lambda task: self._finish(key, kept, task))
        self._forget_old()
        return kept

    def _finish(self, key: str, kept: _Kept, task: asyncio.Task[bytes]) -> None:
        if task.cancelled() or task.exception() is not None:
            # An error is not kept: the same request may succeed the next time.
            self._kept.pop(key, None)
            return
        kept.done_at, kept.num_bytes = time.monotonic(), len(task.result())
        self._forget_old()

    def _forget_old(self) -> None:
        done = [(key, each) for key, each in self._kept.items() if each.done_at is not None]
        count, size, now = len(self._kept), sum(each.num_bytes for _, each in done), time.monotonic()
        for key, each in done:
            assert each.done_at is not None
            if count > self._max_count or size > self._max_bytes or now - each.done_at > self._seconds:
                del self._kept[key]
                count, size = count - 1, size - each.num_bytes


async def _awaited(make: Callable[[], Awaitable[bytes]]) -> bytes:
    return await make()
