"""What the server needs of a model: the part of `Janus` that it talks to."""

from collections.abc import Callable, Sequence
from typing import Protocol

from PIL import Image

from ..bundle.manifest import Manifest
from ..events import Event
from ..prompt import Message

Post = Callable[[Event], None]
"""Called from other threads, in order, never twice at once for one request."""


class Handle(Protocol):
    def cancel(self) -> None:
        """From any thread. The last event is then Failed(Cancelled), unless the request ended before."""


class Status(Protocol):
    """Requests that run and wait, rows of the decoder, bytes of its cache, and what was counted since the model was loaded."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def max_rows(self) -> int | None: ...
    @property
    def cache_bytes(self) -> int: ...
    @property
    def memory_bytes(self) -> int | None: ...
    @property
    def token_bytes(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def stepped_rows(self) -> int: ...
    @property
    def prefilled_tokens(self) -> int: ...
    @property
    def reused_tokens(self) -> int: ...


class Model(Protocol):
    """`submit_*` check everything before they return, which may take a second: never call them on the event loop."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def backend(self) -> str: ...

    def submit_drawing(
        self,
        prompt: str,
        n: int = 1,
        *,
        seed: int = 0,
        cfg_weight: float | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        steps: int | None = None,
        image: Image.Image | None = None,
        image_weight: float | None = None,
        partial_images: int = 0,
        progress: bool = False,
        deadline_s: float | None = None,
        post: Post,
    ) -> Handle: ...

    def submit_answer(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        deadline_s: float | None = None,
        post: Post,
    ) -> Handle: ...

    def status(self) -> Status: ...
