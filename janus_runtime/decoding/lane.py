"""Lane: one picture or answer in flight. Request: the lanes of one caller. Lanes: those that are computed together.

Letters: T tokens of a prompt, D hidden size, V ids.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import Cancelled, DeadlineExceeded, JanusError
from ..events import Event, Failed, Finished, Started, Stop, Usage, Waiting
from ..sampling.draw import Draw
from ..sampling.guidance import Guidance
from ..sampling.sampler import Floats, Ids, Sampler
from .engine import Modality
from .handle import Handle, Post
from .session import Embeds
from .stop import RunStop


@dataclass(frozen=True, eq=False)
class Prefix:
    """What a row is prefilled with: ids [T], and where features of a picture lie over them the digest of those, by the place of the first.
    Rows that begin with equal prefixes hold equal keys and values there."""

    ids: Ids
    pictures: tuple[tuple[int, bytes], ...] = ()

    def common(self, other: "Prefix") -> int:
        """Tokens that both begin with."""
        length = min(len(self.ids), len(other.ids))
        differ = np.flatnonzero(self.ids[:length] != other.ids[:length])
        places = [place for place, _ in set(self.pictures) ^ set(other.pictures)]
        return int(min([length, *differ[:1].tolist(), *places]))


class Lane(ABC):
    """One picture or answer. `kind`: lanes of one kind may be computed together. `num_rows` of the decoder, each at most `length` long."""

    request: "Request"
    kind: Hashable
    num_rows: int
    length: int

    @property
    def continues(self) -> bool:
        """Whether it has its rows already, of a conversation."""
        return False

    @abstractmethod
    def open(self, max_rows: int | None) -> "Lanes":
        """Lanes of this kind, none yet, with room for `max_rows` rows, or for as many as such a request has at once."""


@dataclass(eq=False)
class TokenLane(Lane):
    """A lane that draws `limit` ids at most. `rows` and `base`: those that it has from the start and the tokens that they hold, of a
    conversation; `pinned`: they are kept for its next turn."""

    request: "Request"
    kind: Hashable
    open_lanes: Callable[[int | None], "Lanes"]
    modality: Modality
    prompts: Sequence[tuple[Prefix, Embeds]]
    seed: int
    sampler: Sampler
    guidance: Guidance
    limit: int
    rows: list[int] = field(default_factory=list)
    base: int = 0
    pinned: bool = False
    # Filled in by TokenLanes.
    logits: list[Floats] | None = field(default=None, init=False)
    drawn: list[int] = field(default_factory=list, init=False)
    cached_tokens: int = field(default=0, init=False)

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        return len(self.prompts)

    @property
    def length(self) -> int:  # type: ignore[override]
        return self.base + max(len(prefix.ids) for prefix, _ in self.prompts) + self.limit - 1

    @property
    def continues(self) -> bool:
        return bool(self.rows)

    @property
    def draw(self) -> Draw:
        return Draw(self.seed, len(self.drawn), self.sampler, self.guidance)

    def open(self, max_rows: int | None) -> "Lanes":
        return self.open_lanes(max_rows)


class Lanes(Protocol):
    """Lanes that share calls of the decoder. Used by one thread, the scheduler's."""

    counts: "Counts"

    @property
    def rows(self) -> int:
        """That lanes, and conversations between their turns, have now."""

    @property
    def cache_bytes(self) -> int: ...
    @property
    def is_busy(self) -> bool:
        """Whether a call would do something."""

    @property
    def is_kept(self) -> bool:
        """Whether they stay open without lanes, and are the only ones of their kind."""

    def admit(self, lane: Any, memory: int | None) -> bool:
        """Takes a lane in, if there is a place for it and its cache stays within `memory` bytes."""

    def advance(self) -> list[Lane]:
        """A part of a prompt, then a step of all lanes that draw -> those that came to their end. An error of a call is the error of the
        requests in it."""

    def drop(self, request: "Request") -> None:
        """Ends the lanes of a request that is over."""

    def close(self) -> None: ...


@dataclass
class Counts:
    """What lanes have done since they were opened. A step counts once, whoever is in it."""

    steps: int = 0
    stepped_rows: int = 0
    prefilled_tokens: int = 0
    reused_tokens: int = 0

    def add(self, other: "Counts") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Request(ABC):
    """What one caller wants. The scheduler's thread calls these methods, `prepare` excepted."""

    def __init__(self, post: Post | None = None, deadline_s: float | None = None) -> None:
        self.handle = Handle(post)
        self.submitted = time.perf_counter()
        self.deadline = None if deadline_s is None else self.submitted + deadline_s
        self.most_rows = 1
        """That its lanes may have at once."""
        self.lanes: list[Lane] = []
        self.offered: Lane | None = None
        self._lock = threading.Lock()
        self.is_preparing = False
        self._ahead = 0
        self._over = self._started = False

    @property
    @abstractmethod
    def needs_encoder(self) -> bool:
        """Whether `prepare` takes longer than a step."""

    @abstractmethod
    def prepare(self) -> None:
        """What comes before lanes: graphs are opened, pictures encoded, prompts embedded. In a thread beside the steps of others."""

    @abstractmethod
    def next_lane(self) -> Lane | None:
        """The next lane that could begin now."""

    @abstractmethod
    def take(self, lane: Any, drawn: Any) -> bool:
        """What a step gave to one of its lanes -> whether the lane goes on."""

    @abstractmethod
    def finish(self, lane: Any) -> Callable[[], None] | None:
        """A lane came to its end -> what is to be done of it beside the steps of others."""

    @property
    @abstractmethod
    def usage(self) -> Usage:
        """So far."""

    @property
    def is_over(self) -> bool:
        return self._over

    @property
    def has_started(self) -> bool:
        return self._started

    def start(self) -> None:
        if not self._started:
            self._started = True
            self.report(Started((time.perf_counter() - self.submitted) * 1e3))

    def wait(self, ahead: int) -> None:
        """Tells the caller how many wait before him."""
        if ahead != self._ahead and not self._started:
            self._ahead = ahead
            self.report(Waiting(ahead))

    def report(self, event: Event) -> None:
        """Tells the caller, unless the request is over."""
        with self._lock:
            if not self._over:
                self._post(event)

    def complete(self, stop: Stop | None = None) -> None:
        self._end(Finished(self.usage, stop))

    def fail(self, error: Exception) -> None:
        self._end(Failed(error, self.usage if self._started else None))

    def check(self) -> None:
        """Ends it where its caller or its time says so."""
        if self.handle.cancelled:
            self.fail(Cancelled("the request was cancelled"))
        elif self.deadline is not None and time.perf_counter() > self.deadline:
            seconds = self.deadline - self.submitted
            self.fail(DeadlineExceeded(f"the request was not done after {seconds:.0f} s, its limit; ask for less, or allow more time"))

    def _end(self, event: Event) -> None:
        with self._lock:
            if not self._over:
                self._over = True
                self._post(event)
        self.handle.wake()

    def _post(self, event: Event) -> None:
        try:
            self.handle.post(event)
        except Exception:  # A caller who is gone must not take the others along.
            self._over = True


@contextmanager
def stopping(requests: Collection[Request]) -> Iterator[RunStop]:
    """A stop for a call that computes for these requests: it is set once all are cancelled."""
    stop = RunStop()

    def on_cancel() -> None:
        if all(request.handle.cancelled for request in requests):
            stop.set()

    with ExitStack() as stack:
        for request in requests:
            stack.enter_context(request.handle.watching(on_cancel))
        yield stop


def as_error(error: Exception) -> Exception:
    """What a call of the decoder raised, as its caller may see it."""
    return error if isinstance(error, JanusError | MemoryError) else JanusError(f"{type(error).__name__}: {error}")
