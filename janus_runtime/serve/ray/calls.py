"""What goes between an ingress replica and a model replica. Everything here is pickled by Ray."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ...bundle.manifest import Manifest
from ...decoding.handle import Handle, Post
from ...errors import BackendError, JanusError, NumericalError, OutOfMemory
from ...events import Event
from ...janus import Janus


@dataclass(frozen=True)
class Call:
    """A request for pictures or for one answer. `rows` that it wants of the decoder; `head`: what tells its conversation from others,
    where a replica that holds that conversation saves work; `avoid`: replicas that have failed it."""

    id: str
    ingress: str
    kind: Literal["drawing", "answer"]
    asked: tuple[Any, ...]
    settings: dict[str, Any]
    rows: int
    head: bytes | None = None
    avoid: frozenset[str] = field(default_factory=frozenset)

    def submit(self, janus: Janus, post: Post) -> Handle:
        """Raises what `Janus.submit_drawing` and `Janus.submit_answer` do."""
        submit: Callable[..., Handle] = janus.submit_drawing if self.kind == "drawing" else janus.submit_answer
        return submit(*self.asked, post=post, **self.settings)


@dataclass(frozen=True)
class Taken:
    """The first item of a call's stream: this replica has it."""

    replica: str


@dataclass(frozen=True)
class Refused:
    """The first and only item: the model did not take it."""

    replica: str
    error: Exception


@dataclass(frozen=True)
class Alive:
    """Nothing happened for a while, and the replica is there."""


Item = Taken | Refused | Alive | Event


@dataclass(frozen=True)
class Description:
    """What an ingress needs to know of the model that it has not."""

    manifest: Manifest
    backend: str


def is_fault(error: Exception) -> bool:
    """Whether a request that ended with this may end well on another replica: the engine failed, not what was asked of it."""
    return type(error) in (JanusError, BackendError, NumericalError, OutOfMemory) or isinstance(error, MemoryError)
