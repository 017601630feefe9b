"""Server-sent events: an answer that is sent while it is computed."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import JanusError
from .api_error import ClientGone, run_error
from .work import Work, until_gone

_log = logging.getLogger("janus_runtime.serve")
DONE = b"data: [DONE]\n\n"
EVENT_SCHEMA = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}, "required": ["data"]}
"""Of one event, in the OpenAPI document."""


def event(value: dict[str, Any], name: str | None = None) -> bytes:
    """One event with JSON data. Clients of OpenAI's tell events apart by their data, others by `name`."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Sends `chunks` as they come, and a comment after each pause of `ping_s`; an error ends it as an event.

    Owns `work`: a client that goes away ends it.
    """

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[bytes, None], work: Work, ping_s: float) -> None:
        # The second header keeps nginx from collecting the stream before it passes it on.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        # The length of a stream is not known.
        del self.headers["content-length"]
        self._chunks = chunks
        self._work = work
        self._ping_s = ping_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_gone(receive, self._send(send))
        except ClientGone:
            scope["state"]["client_gone"] = True
        finally:
            self._work.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        coming: asyncio.Future[bytes] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(self._chunks))
                await asyncio.wait((coming,), timeout=self._ping_s)
                if not coming.done():
                    await _send_more(send, b": ping\n\n")
                    continue
                done, coming = coming, None
                await _send_more(send, done.result())
        except StopAsyncIteration:
            pass
        except Exception as error:
            if not isinstance(error, JanusError | MemoryError):
                _log.error("a stream met a fault of the server", exc_info=error)
            await _send_more(send, event(run_error(error).body))
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            await self._chunks.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_more(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
