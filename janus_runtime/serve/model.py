"""The model as the routes see it: in this process, or behind others that have it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from prometheus_client.core import Metric

from ..bundle.manifest import Manifest
from ..decoding.handle import Post
from ..janus import Janus
from ..prompt import Message
from .metrics import status_families
from .traffic import Cancellable


class Model(Protocol):
    """What the server needs of a model. Methods are called on the event loop."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def backend(self) -> str: ...

    async def submit_drawing(self, prompt: str, n: int, *, post: Post, **settings: Any) -> Cancellable:
        """As `Janus.submit_drawing`; returns once the request is taken, and raises what that raises."""

    async def submit_answer(self, messages: Sequence[Message], *, post: Post, **settings: Any) -> Cancellable:
        """As `Janus.submit_answer`, likewise."""

    def why_not_ready(self, max_queue: int) -> str | None:
        """Why a request that came now would be refused; None where it would not. `max_queue` may wait in a process."""

    async def collect(self, served: Sequence[Metric]) -> list[Metric]:
        """Metrics of the whole service, given those of this process's requests."""


class LocalModel:
    """A `Janus` of this process. Its calls check and tokenize, so they run in threads."""

    def __init__(self, janus: Janus) -> None:
        self._janus = janus

    @property
    def manifest(self) -> Manifest:
        return self._janus.manifest

    @property
    def backend(self) -> str:
        return self._janus.backend

    async def submit_drawing(self, prompt: str, n: int, *, post: Post, **settings: Any) -> Cancellable:
        return await asyncio.to_thread(self._janus.submit_drawing, prompt, n, post=post, **settings)

    async def submit_answer(self, messages: Sequence[Message], *, post: Post, **settings: Any) -> Cancellable:
        return await asyncio.to_thread(self._janus.submit_answer, messages, post=post, **settings)

    def why_not_ready(self, max_queue: int) -> str | None:
        return "the queue is full" if self._janus.status().waiting >= max_queue else None

    async def collect(self, served: Sequence[Metric]) -> list[Metric]:
        return [*status_families(self._janus.status(), self.manifest.name), *served]
