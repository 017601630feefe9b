"""Takes in a request's body before its route runs, neither too long nor too slowly."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_error import ApiError, ClientGone
from .settings import ServeSettings

# A client reads no answer before it has sent its body, unless it asks first. For the answer to arrive, so many times the limit is read.
_DROPPED = 4
# Bodies in memory at once, if all are as long as they may be.
_IN_HAND = 16


class Body:
    """ASGI middleware. A body is counted as it arrives: its length may not be stated."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app = app
        self._limit = settings.max_body_bytes
        self._timeout_s = settings.body_timeout_s
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await asyncio.wait_for(self._receive(scope, receive), self._timeout_s)
        except asyncio.TimeoutError:
            message = (
                f"the body did not arrive within {self._timeout_s:g} s; send it faster, or start the server with a longer --body-timeout"
            )
            # The rest of the body is not waited for, so the connection cannot go on.
            too_slow = ApiError(408, message, code="body_timeout", headers={"connection": "close"})
            await too_slow.response()(scope, receive, send)
            return
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        if self._held + len(body) > self._limit * _IN_HAND:
            busy = "the bodies of the requests in hand fill the memory that the server has for them; try again later"
            await ApiError(429, busy, code="busy", headers={"retry-after": "5"}).response()(scope, receive, send)
            return
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        self._held += len(body)
        try:
            await self._app(scope, replay, send)
        finally:
            self._held -= len(body)

    async def _receive(self, scope: Scope, receive: Receive) -> bytes:
        headers = Headers(scope=scope)
        stated = headers.get("content-length", "0")
        length = int(stated) if stated.isdecimal() else 0
        if length > self._limit * (1 if "expect" in headers else _DROPPED):
            raise self._too_long(f"{length:,}")
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > self._limit * _DROPPED:
                raise self._too_long(f"more than {self._limit * _DROPPED:,}")
            if size > self._limit:
                chunks.clear()
            else:
                chunks.append(message.get("body", b""))
        if size > self._limit:
            raise self._too_long(f"{size:,}")
        return b"".join(chunks)

    def _too_long(self, size: str) -> ApiError:
        message = (
            f"the body has {size} bytes, this server takes {self._limit:,}; send smaller pictures, or start it with a larger --max-body"
        )
        return ApiError(413, message, code="body_too_long", headers={"connection": "close"})
