"""Runs the server until a signal ends it: first it answers what it has begun, then it stops."""

import asyncio
import logging
import signal
import socket
import time
from types import FrameType

import uvicorn

from ..errors import JanusError
from ..janus import Janus
from .app import make_app
from .connection import connection_class
from .service import Service
from .settings import ServeSettings

_log = logging.getLogger("janus_runtime.serve")
# What is left after the grace ends at once, and needs only to be told so.
_LAST_S = 5
_TICK_S = 0.5


class Server(uvicorn.Server):
    """`uvicorn.Server` that goes on answering while it stops: probes, and 503 to new requests."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        super().__init__(
            uvicorn.Config(
                make_app(service),
                http=connection_class(settings),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # No proxy is believed: nothing depends on where a client is.
                proxy_headers=False,
                limit_concurrency=settings.max_connections,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=_LAST_S,
                h11_max_incomplete_event_size=64 << 10,
            )
        )
        self._service = service
        self._until: float | None = None

    def stop(self) -> None:
        """From any thread, and from a signal's handler. Takes no more requests, and ends when those in hand are done."""
        if self._until is None:
            self._until = time.monotonic() + self._service.settings.grace_s
            self._service.traffic.stopping = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._until is not None:
            # The second one ends the process at once. Nothing is half written.
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.stop()

    async def main_loop(self) -> None:
        """uvicorn's, which wakes ten times a second: an idle server took 0.17 s of processor time a minute. Twice is enough."""
        counter = 0
        while not await self.on_tick(counter):
            await asyncio.sleep(_TICK_S)
            # It renews the Date header once in ten.
            counter += round(10 * _TICK_S)

    async def on_tick(self, counter: int) -> bool:
        """Ends the loop when it is true."""
        if await super().on_tick(counter):
            return True
        if self._until is None:
            return False
        traffic = self._service.traffic
        if traffic.idle:
            return True
        if time.monotonic() < self._until:
            return False
        _log.warning("%d requests were not done within the grace; they end with an error", traffic.requests)
        traffic.cancel_all()
        return True


def listen(settings: ServeSettings) -> socket.socket:
    """A socket on the host and port of `settings`; port 0 is any free one. Raises JanusError if that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=1024)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise JanusError(f"cannot listen on {settings.host}, port {settings.port}: {reason}; choose another --host or --port") from None


def address_of(listener: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _describe_capacity(model: Janus) -> str:
    """What may be in use at once."""
    status, longest = model.status(), model.manifest.language_model.max_length
    if status.max_rows is None or not status.token_bytes:
        return f"{status.max_rows or 'any number of'} rows at once"
    most = status.max_rows * longest * status.token_bytes
    limited = "" if status.memory_bytes is None or status.memory_bytes >= most else f", limited to {status.memory_bytes / 1e9:.2f} GB"
    each = f"{status.token_bytes / 1e3:.1f} kB a token"
    return f"{status.max_rows} rows at once; keys and values take {each}, {most / 1e9:.2f} GB at most{limited}"


def serve_on(listener: socket.socket, model: Janus, settings: ServeSettings) -> None:
    """Answers requests with `model` until SIGTERM or SIGINT. A second signal ends the process at once."""
    if not settings.is_loopback and settings.api_key is None:
        _log.warning(
            "ANYBODY who reaches %s can use this server, for it has no API key: set JANUS_API_KEY or --api-key-file, "
            "or use --host 127.0.0.1",
            settings.host,
        )
    manifest = model.manifest
    weights = ", random weights: expect noise, not pictures or sense" if manifest.random_weights else ""
    _log.info("serving %s, %s, %s%s at %s", manifest.name, manifest.precision, model.backend, weights, address_of(listener))
    _log.info("%s", _describe_capacity(model))
    Server(Service.of(model, settings)).run(sockets=[listener])
