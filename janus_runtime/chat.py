"""Image to text as its caller sees it: a conversation, and answers whose text comes piece by piece. Letters: T new prompt ids."""

import threading
import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from .answering import Answering, Place
from .decoding.engines import Engines
from .decoding.handle import Post
from .decoding.scheduler import Scheduler
from .decoding.token_lanes import TokenLanes
from .errors import Cancelled, ConversationFull, JanusError
from .events import Event, Finished, Said, Started, Stop, Waiting
from .pictures.image import Picture, as_pictures, open_image, preprocess
from .prompt import Ids, Prompter
from .sampling.noise import check_seed
from .sampling.sampler import Sampler


@dataclass(eq=False)
class _Turn:
    """What was said in one turn. The conversation keeps the last one; it knows nothing of the `Answer` that shows it."""

    request: Answering
    begin: int
    """Tokens before the answer."""
    text_ids: list[int] = field(default_factory=list)
    stop: Stop | None = None
    over: str = ""
    """Why nothing more can be read of it."""

    @property
    def cached(self) -> int:
        """Tokens up to here whose keys every way of reading this turn leaves in the cache. The last id is fed with the next turn, unless
        the end was drawn after it."""
        return self.begin + len(self.text_ids) - (self.stop != "eos" and len(self.text_ids) > 0)


class Answer:
    """Iterate for chunks of text as they come; `text`, `text_ids` and `timings` (ms) grow with them.

    `stop` is "eos" or "length" at the end. Leaving the loop early is fine: what was read so far is what was said. `close`, or `with`,
    ends it.
    """

    def __init__(self, turn: _Turn, chunks: Generator[str, None, None]) -> None:
        self.text = ""
        self._turn = turn
        self._chunks = chunks
        weakref.finalize(self, turn.request.handle.cancel)

    @property
    def text_ids(self) -> list[int]:
        return self._turn.text_ids

    @property
    def stop(self) -> Stop | None:
        return self._turn.stop

    @property
    def timings(self) -> dict[str, float]:
        return self._turn.request.timings

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            chunk = next(self._chunks)
        except BaseException:
            self.close()
            raise
        self.text += chunk
        return chunk

    def close(self) -> None:
        """Ends the answer where it is."""
        self._chunks.close()
        self._turn.request.handle.cancel()

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Asker:
    """What turns a question into an answer: the model's parts, and the scheduler that runs it."""

    def __init__(self, engines: Engines, prompter: Prompter, scheduler: Scheduler) -> None:
        self.engines, self.prompter, self.scheduler = engines, prompter, scheduler
        limits, longest = engines.backend.limits, engines.manifest.language_model.max_length
        # A backend may hold less than the model.
        self.max_length = longest if limits is None else min(longest, limits.lengths[-1])
        self._longer = "" if self.max_length == longest else "; build longer plans with 'janus-export engines DIR --lengths …'"

    def ask(
        self,
        ids: Ids,
        images: Sequence[Picture],
        *,
        exif_orientation: bool = True,
        max_tokens: int | None,
        sampler: Sampler | None,
        seed: int,
        place: Place | None = None,
        post: Post | None = None,
        deadline_s: float | None = None,
    ) -> Answering:
        """The request of a prompt, after what `place` holds. Raises ConversationFull, ValueError, ImageError."""
        manifest = self.engines.manifest
        limit, held = (place.max_length, place.base) if place else (self.max_length, 0)
        room = limit - held - len(ids)
        if room < 1:
            raise ConversationFull(
                f"the conversation would have {limit - room} tokens, the limit is {limit} with at "
                f"least one left for the answer; use fewer pictures or less text, or start a new conversation{self._longer}"
            )
        max_tokens = manifest.defaults.max_tokens if max_tokens is None else max_tokens
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; expected 1 or more")
        pixels = [preprocess(open_image(image, exif_orientation), manifest.image_input) for image in images]
        return Answering(
            self.engines,
            self.prompter,
            ids,
            pixels,
            min(max_tokens, room),
            sampler or Sampler(temperature=0),
            check_seed(seed),
            retained_bytes=self.scheduler.limits.retained_bytes,
            place=place,
            post=post,
            deadline_s=deadline_s,
        )

    def answer(self, request: Answering, begin: int, cancel: threading.Event | None) -> tuple[_Turn, Answer]:
        """Submits it, and returns when its first token is drawn. Raises NumericalError, Cancelled, BackendError, Busy."""
        turn = _Turn(request, begin)
        _check(cancel, turn)
        self.scheduler.submit(request)
        events = request.handle.events(cancel)
        try:
            first = next((event for event in events if not isinstance(event, Started | Waiting)), None)
            if first is None:
                raise Cancelled("cancelled after 0 tokens")
        except BaseException:
            request.handle.cancel()
            raise
        return turn, Answer(turn, _read(turn, first, events, cancel))


def _read(turn: _Turn, event: Event | None, events: Iterator[Event], cancel: threading.Event | None) -> Generator[str, None, None]:
    """Yields text, and keeps in `turn` what was read."""
    while event is not None:
        _check(cancel, turn)
        if isinstance(event, Said):
            turn.text_ids.extend(event.text_ids)
            if event.text:
                yield event.text
        elif isinstance(event, Finished):
            turn.stop = event.stop
        if turn.over:
            raise JanusError(turn.over)
        event = next(events, None)
    _check(cancel, turn)


class Chat:
    """A conversation that keeps its cache between turns; `close`, or `with`, frees it. Not to be shared by threads."""

    def __init__(self, asker: Asker, max_length: int) -> None:
        self.max_length = min(max_length, asker.max_length)
        self._asker = asker
        self._place = Place(asker.engines, self.max_length)
        self._last: _Turn | None = None
        self._closed = False
        self._free = weakref.finalize(self, _free, asker.scheduler, self._place)

    def close(self) -> None:
        """Frees the cache. An answer that still runs ends."""
        self._closed = True
        self._end("this conversation is closed; start another with janus.chat()")
        self._free()

    def __enter__(self) -> "Chat":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def length(self) -> int:
        """Tokens of the conversation that are in the cache."""
        return 0 if self._last is None else self._last.cached

    def say(
        self,
        text: str,
        images: Picture | Sequence[Picture] = (),
        *,
        exif_orientation: bool = True,
        max_tokens: int | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """One turn. Pictures come before the text, upright as their EXIF says unless `exif_orientation` is
        False, which leaves them as stored, as the original does. `sampler` defaults to greedy. Ends the answer before it, if it still runs.

        Returns when the first token is drawn; the rest is drawn while the answer is read. Raises ImageError,
        PromptError, ValueError, Busy at once, NumericalError and Cancelled at any time. A turn that raises before it returns
        has cost the conversation nothing; after any error the conversation can go on.
        """
        if self._closed:
            raise JanusError("this conversation is closed; start another with janus.chat()")
        pictures = as_pictures(images)
        ids = np.concatenate([self._unsaid(), self._asker.prompter.question(text, len(pictures), first=self._last is None)])
        self._place.base = self.length
        request = self._asker.ask(
            ids,
            pictures,
            exif_orientation=exif_orientation,
            max_tokens=max_tokens,
            sampler=sampler,
            seed=seed,
            place=self._place,
        )
        self._end("this answer ended when the next turn began; read it before you go on")
        self._last, answer = self._asker.answer(request, self.length + len(ids), cancel)
        return answer

    def _end(self, reason: str) -> None:
        """Nothing more is read of the last turn; its row is free for the next one."""
        if self._last is not None:
            self._last.over = reason
            self._last.request.handle.cancel()

    def _unsaid(self) -> Ids:
        """Ids that belong to the conversation but are not in the cache: the last one drawn, and the end of the turn."""
        if self._last is None:
            return np.zeros(0, np.int32)
        return np.array([*self._last.text_ids[self._last.cached - self._last.begin :], self._asker.prompter.tokens.eos.id], np.int32)


def _free(scheduler: Scheduler, place: Place) -> None:
    """A conversation is over, closed or forgotten."""

    def release() -> None:
        lanes = scheduler.find(place.kind)
        if isinstance(lanes, TokenLanes):
            for row in place.rows:
                lanes.release(row)

    scheduler.soon(release)


def _check(cancel: threading.Event | None, turn: _Turn) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"cancelled after {len(turn.text_ids)} tokens")
