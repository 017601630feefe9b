"""Gives each request its id, writes its line in the log, and answers for whatever nobody else answered for."""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_error import ApiError, ClientGone, run_error
from .metrics import Meter, Metrics

_log = logging.getLogger("janus_runtime.serve")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# What nginx writes where the client closed the connection.
_GONE = 499


class Journal:
    """The outermost ASGI middleware. A line has no prompt, no picture, no key and no address."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        """`paths`: those of the routes. Others are one to the metrics, where each would take memory."""
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        began, status, state = time.monotonic(), 0, scope.setdefault("state", {})

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            state["client_gone"] = True
        except Exception as error:
            _log.error("request %s met a fault of the server", request_id, exc_info=error)
            if not status:
                answer = error if isinstance(error, ApiError) else run_error(error)
                await answer.response()(scope, receive, send_with_id)
        path = scope["path"]
        meter: Meter | None = state.get("meter")
        gone = state.get("client_gone", False)
        shown = _GONE if gone else status
        self._metrics.http_requests.labels(path if path in self._paths else "other", str(shown)).inc()
        line: dict[str, object] = {
            "request_id": request_id,
            "method": scope["method"],
            "path": path[:200],
            "status": shown,
            "ms": round((time.monotonic() - began) * 1e3, 1),
            "client_gone": gone,
        }
        if meter is not None:
            line |= {
                "queue_ms": None if meter.queued_ms is None else round(meter.queued_ms, 1),
                "prompt_tokens": meter.prompt_tokens,
                "completion_tokens": meter.completion_tokens,
                "images": meter.images,
                "finished_reason": meter.finished,
            }
        _log.info("request", extra={"request": line})
