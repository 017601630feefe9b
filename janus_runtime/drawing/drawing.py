"""Drawing: the pictures of one request as lanes of the scheduler, and the loop of a caller who waits for them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from numpy.typing import NDArray

from ..decoding.engines import Engines
from ..decoding.handle import Post
from ..decoding.lane import Lane, Request
from ..errors import Cancelled
from ..events import Drawn, Partial, Progress, Usage
from ..pictures.image import postprocess
from ..prompt import Ids, Prompter
from .drawer import Drawer
from .request import DrawRequest, GeneratedImage, OnStep, ReferenceFeatures

Beside = Callable[[Request, Callable[[], None]], None]


@dataclass
class _Picture:
    """One that is being drawn; times in seconds."""

    number: int
    prompt: int
    seed: int
    begun: float
    first: float = 0.0
    partials: int = 0


class Drawing(Request):
    """`batch_size` pictures are lanes at once, and the next ones begin when they are drawn."""

    def __init__(
        self,
        engines: Engines,
        drawer: Drawer,
        prompter: Prompter,
        request: DrawRequest,
        *,
        post: Post | None = None,
        deadline_s: float | None = None,
        progress: bool = False,
        partial_images: int = 0,
        show_beside: Beside | None = None,
    ) -> None:
        """`show_beside` decodes partial pictures where there is time. Raises PromptError."""
        super().__init__(post, deadline_s)
        self.request = request
        self.taken = 0
        self._engines = engines
        self._graphs = drawer.graphs(request.pixels is not None, partial_images > 0)
        self._drawer = drawer
        self._ids = [prompter.image(prompt, request.pixels is not None) for prompt in request.prompts]
        self.num_steps = drawer.num_steps(request.settings)
        self.num_pictures = len(request.prompts) * request.n
        self._batches = iter(_batches(drawer, self._ids, request))
        self.total = self.num_steps * sum(1 for _ in _batches(drawer, self._ids, request))
        self.most_rows = min(request.batch_size, self.num_pictures) * (3 if request.pixels is not None else 2)
        self._progress = progress
        self._shown = [max(round(self.num_steps * share), 1) for share in shown_after(partial_images)]
        self._show_beside = show_beside
        self._reference: ReferenceFeatures = ()
        self._before: dict[str, float] = {}
        self._batch: deque[tuple[int, int, int]] = deque()
        self._batch_size = self._batch_steps = self._steps_before = self._step = 0
        self._prompt: tuple[int, Any] = (-1, None)
        self._pictures: dict[int, _Picture] = {}
        self._num_drawn = 0
        self._cached_tokens = self._num_steps_taken = 0

    @property
    def needs_encoder(self) -> bool:
        return self.request.pixels is not None or not self._engines.are_open(*self._graphs)

    @property
    def usage(self) -> Usage:
        return Usage(sum(map(len, self._ids)), 0, self._cached_tokens, self._num_steps_taken)

    def prepare(self) -> None:
        self._before = {"load": self._engines.open(*self._graphs)}
        if self.request.pixels is not None:
            start = time.perf_counter()
            self._reference = self._drawer.encode_reference(self.request.pixels)
            self._before["encode"] = (time.perf_counter() - start) * 1e3

    def next_lane(self) -> Lane | None:
        if not self._batch:
            # A caller who is slow to take pictures does not get more and more of them into memory.
            if self.lanes or self._num_drawn - self.taken > self.request.batch_size:
                return None
            self._steps_before += self.num_steps if self._batch_size else 0
            self._batch = deque(next(self._batches, ()))
            self._batch_size, self._batch_steps = len(self._batch), 0
            if not self._batch:
                return None
        number, prompt, seed = self._batch.popleft()
        if self._prompt[0] != prompt:
            self._prompt = (prompt, self._drawer.embed(self._ids[prompt], self._reference))
        lane = self._drawer.lane(self, self._prompt[1], seed, self.request.settings)
        self._pictures[id(lane)] = _Picture(number, prompt, seed, time.perf_counter())
        return lane

    def take(self, lane: Any, drawn: Any) -> bool:
        picture = self._pictures[id(lane)]
        steps = len(lane.drawn)
        if steps == 1:
            picture.first = time.perf_counter()
        self._batch_steps += 1
        self._num_steps_taken += 1
        step = self._steps_before + self._batch_steps // self._batch_size
        if step > self._step:
            self._step = step
            if self._progress:
                self.report(Progress(step, self.total))
        if steps in self._shown and steps < self.num_steps and self._show_beside is not None:
            guess = self._drawer.guess(lane)
            self._show_beside(self, lambda: self._show(picture, guess))
        return True

    def finish(self, lane: Any) -> Callable[[], None]:
        picture, drawn_at = self._pictures.pop(id(lane)), time.perf_counter()
        drawn = self._drawer.collect(lane)
        timings = {**self._before, "prefill": (picture.first - picture.begun) * 1e3, "steps": (drawn_at - picture.first) * 1e3}
        timings["step"] = timings["steps"] / max(self.num_steps - 1, 1)
        self._cached_tokens += lane.cached_tokens
        return lambda: self._decode(picture, drawn, timings)

    def _decode(self, picture: _Picture, drawn: NDArray[Any], timings: dict[str, float]) -> None:
        start = time.perf_counter()
        image = postprocess(self._drawer.decode(drawn))
        by_flow = self.request.settings.steps is not None
        generated = GeneratedImage(
            image=image,
            image_ids=None if by_flow else drawn,
            latents=drawn if by_flow else None,
            prompt=self.request.prompts[picture.prompt],
            seed=picture.seed,
            settings=self.request.settings,
            timings={**timings, "decode": (time.perf_counter() - start) * 1e3},
        )
        self._num_drawn += 1
        self.report(Drawn(picture.number, generated))
        if self._num_drawn == self.num_pictures:
            self.complete()

    def _show(self, picture: _Picture, guess: NDArray[Any]) -> None:
        image = postprocess(self._drawer.decode_preview(guess))
        self.report(Partial(picture.number, picture.partials, image))
        picture.partials += 1


def shown_after(count: int) -> list[float]:
    """Shares of its steps after which a picture is shown `count` times, the first early: people look whether it becomes what they meant."""
    return [(i + 0.6) / (count + 0.6) for i in range(count)]


def _batches(drawer: Drawer, ids: Sequence[Ids], request: DrawRequest) -> Iterator[list[tuple[int, int, int]]]:
    """Number, prompt and seed of each picture in order, cut where a batch is full or the next prompt must not join it."""
    number = 0
    for _, prompts in groupby(range(len(ids)), lambda prompt: drawer.batch_key(ids[prompt])):
        jobs = ((prompt, request.seed + i) for prompt in prompts for i in range(request.n))
        while batch := list(islice(jobs, request.batch_size)):
            yield [(number + i, *job) for i, job in enumerate(batch)]
            number += len(batch)


def pictures(drawing: Drawing, on_step: OnStep | None, cancel: threading.Event | None) -> Generator[GeneratedImage, None, None]:
    """Yields pictures in order as they are done. Raises NumericalError, Cancelled and BackendError."""
    done: dict[int, GeneratedImage] = {}
    step = 0
    try:
        for event in drawing.handle.events(cancel):
            if isinstance(event, Progress):
                step = event.step
                if on_step is not None:
                    on_step(step, event.total)
            elif isinstance(event, Drawn):
                done[event.number] = event.picture
                del event
                while (picture := done.pop(drawing.taken, None)) is not None:
                    drawing.taken += 1
                    yield picture
                    del picture
                    drawing.handle.wake()
        if not drawing.is_over:
            raise Cancelled(f"cancelled after {step} of {drawing.total} steps")
    finally:
        drawing.handle.cancel()
