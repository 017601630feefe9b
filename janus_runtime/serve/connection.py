"""uvicorn's connection with the time limits that it lacks: for the head of a request, and for a client that does not read."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .settings import ServeSettings

# So much must go out within the time limit where a client reads slowly.
_MIN_SENT_BYTES = 16 << 10


def connection_class(settings: ServeSettings) -> type[H11Protocol]:
    """uvicorn takes a class, and makes one of it for each connection."""

    class Connection(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None
        _send_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._time_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._time_head()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop_head_timer()
            self._stop_send_timer()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._time_sending()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_send_timer()

        def _time_head(self) -> None:
            """The client's state is IDLE until it has sent a whole head. Bytes that come slowly do not restart the time."""
            if self.conn.their_state is not h11.IDLE:
                self._stop_head_timer()
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(settings.header_timeout_s, self.transport.abort)

        def _time_sending(self) -> None:
            left = self.transport.get_write_buffer_size()

            def check() -> None:
                if self.transport.get_write_buffer_size() > left - _MIN_SENT_BYTES:
                    self.transport.abort()
                else:
                    self._time_sending()

            self._send_timer = self.loop.call_later(settings.send_timeout_s, check)

        def _stop_head_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _stop_send_timer(self) -> None:
            if self._send_timer is not None:
                self._send_timer.cancel()
                self._send_timer = None

    return Connection
