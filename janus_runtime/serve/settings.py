"""Every option and limit of the server, in one place."""

from dataclasses import dataclass, field
from typing import Literal

from ..pictures.image import MAX_PIXELS

MIB = 1 << 20


@dataclass(frozen=True)
class ServeSettings:
    """Checked where it is made, in `cli/serve.py`; carried whole to everyone who needs a part of it."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    """Names, beside `host` and those of loopback, that a Host header may have; `*` allows all."""
    cors_origins: tuple[str, ...] = ()
    """Origins, beside our own, whose pages may ask."""
    edits: bool = False
    """Whether the model was trained to draw from a picture, which a bundle does not say."""
    allow_remote_images: bool = False
    max_queue: int = 64
    """Requests that may wait for the model: with as many, the server is not ready."""
    max_connections: int = 1024
    max_requests: int = 256
    """Requests that may be in the server at once, their bodies in its memory."""
    max_body_bytes: int = 32 * MIB
    max_images: int = 16
    """Pictures in one request,"""
    max_pixels: int = MAX_PIXELS
    """and pixels of all of them together: a small file may hold very many."""
    max_prompt_chars: int = 32_000
    max_n: int = 10
    max_tokens: int | None = None
    """Longest answer that a request may ask for; None is the model's limit."""
    timeout_s: float = 3600.0
    """How long a request may wait and be computed."""
    header_timeout_s: float = 10.0
    """How long a connection may take to send the head of a request."""
    body_timeout_s: float = 60.0
    """How long a request's body may take to arrive."""
    send_timeout_s: float = 60.0
    """How long a client may read nothing of an answer."""
    keep_alive_s: int = 30
    ping_s: float = 10.0
    """Pause in a stream after which a comment is sent, so that nobody between takes the connection for dead."""
    grace_s: float = 30.0
    """How long running requests may take after SIGTERM."""
    kept_answers: int = 256
    """Answers kept under their Idempotency-Key,"""
    kept_answer_bytes: int = 64 * MIB
    """in so much memory,"""
    kept_answer_s: float = 600.0
    """for so long."""
    log_format: Literal["json", "text"] = "text"

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK or self.host.startswith("127.")


LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
