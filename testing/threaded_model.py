"""`Janus` with the methods that a server submits requests to, until it has them itself: a thread for each request.

`python -m testing.threaded_model serve …` is `janus-rt serve …` over it.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from PIL import Image

import janus_runtime.janus
from janus_runtime.bundle.bundle import NANO
from janus_runtime.drawing.request import DrawSettings
from janus_runtime.errors import Busy, Cancelled, DeadlineExceeded, JanusError
from janus_runtime.events import Drawn, Event, Failed, Finished, Partial, Progress, Said, Started, Usage
from janus_runtime.janus import Janus
from janus_runtime.prompt import Message
from janus_runtime.sampling.noise import check_seed

Post = Callable[[Event], None]


@dataclass(frozen=True)
class Status:
    running: int
    waiting: int
    rows: int
    max_rows: int | None
    cache_bytes: int
    memory_bytes: int | None
    steps: int
    stepped_rows: int
    prefilled_tokens: int
    reused_tokens: int


class Handle:
    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class ThreadedModel:
    def __init__(self, janus: Janus, max_rows: int | None = None, memory_bytes: int | None = None, max_queue: int | None = None) -> None:
        self.janus = janus
        self.max_rows = max_rows or 16
        self.max_queue = 64 if max_queue is None else max_queue
        self._free = threading.Semaphore(max(self.max_rows // 2, 1))
        self._lock = threading.Lock()
        self._running = self._waiting = self._steps = 0
        self._number = itertools.count()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.janus, name)

    def __enter__(self) -> "ThreadedModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.janus.close()

    def status(self) -> Status:
        return Status(self._running, self._waiting, 2 * self._running, self.max_rows, 0, None, self._steps, 2 * self._steps, 0, 0)

    def submit_drawing(
        self,
        prompt: str,
        n: int = 1,
        *,
        image: Image.Image | None = None,
        partial_images: int = 0,
        progress: bool = False,
        deadline_s: float | None = None,
        post: Post,
        **settings: Any,
    ) -> Handle:
        handle, deadline = Handle(), _deadline(deadline_s)
        size = self.janus.manifest.image_output.size
        partials = iter(range(partial_images))

        def on_step(step: int, total: int) -> None:
            self._steps += 1
            _check(handle, deadline)
            if progress:
                post(Progress(step, total))
            if partial_images and step % max(total // (partial_images + 1), 1) == 0 and (index := next(partials, None)) is not None:
                post(Partial(0, index, Image.new("RGB", (size, size), "grey")))

        if image is not None and self.janus.manifest.name == "janus-nano":
            # Its decoder is not trained for it, and needs a GPU-free backend; the pictures are what they would be without.
            DrawSettings.make(self.janus.manifest, **{**_drawing(settings), "image_weight": None})
            settings.pop("image_weight", None)
            image = None
        usage = Usage(len(self.janus._prompter.image(prompt)), 0, 0, n * self.janus.manifest.image_output.num_tokens)
        seed = check_seed(settings.pop("seed", 0), n)
        streams = [self.janus.stream(prompt, 1, seed=seed + i, image=image, on_step=on_step, **settings) for i in range(n)]

        def run() -> Iterator[Event]:
            for number, stream in enumerate(streams):
                for picture in stream:
                    yield Drawn(number, picture)
            yield Finished(usage, None)

        return self._start(handle, deadline, run, post, lambda: Usage(usage.text_tokens, 0, 0, 0))

    def submit_answer(
        self, messages: Sequence[Message], *, max_tokens: int | None = None, deadline_s: float | None = None, post: Post, **settings: Any
    ) -> Handle:
        from janus_runtime.sampling.sampler import Sampler

        handle, deadline = Handle(), _deadline(deadline_s)
        sampler = Sampler(settings.get("temperature", 0.0), settings.get("top_k", 0), settings.get("top_p", 1.0))
        last = messages[-1]
        images = [image for message in messages for image in message.images]
        prompt = self.janus._prompter.question("\n".join(message.text for message in messages), len(images))
        image_tokens = len(images) * self.janus.manifest.image_input.num_tokens
        chat = self.janus.chat()
        try:
            answer = chat.say(last.text, images, max_tokens=max_tokens, sampler=sampler, seed=settings.get("seed", 0))
        except BaseException:
            chat.close()
            raise

        def used() -> Usage:
            return Usage(len(prompt) - image_tokens, image_tokens, 0, len(answer.text_ids))

        def run() -> Iterator[Event]:
            with chat:
                seen = 0
                for chunk in answer:
                    yield Said(chunk, tuple(answer.text_ids[seen:]))
                    seen = len(answer.text_ids)
                stop = "length" if answer.stop == "length" else "eos"
                yield Finished(used(), stop)

        return self._start(handle, deadline, run, post, used)

    def _start(
        self, handle: Handle, deadline: float | None, run: Callable[[], Iterator[Event]], post: Post, used: Callable[[], Usage]
    ) -> Handle:
        with self._lock:
            if self._waiting >= self.max_queue:
                raise Busy(f"{self._waiting} requests wait, as many as may; try again later", 2.5)
            self._waiting += 1
        began = monotonic()

        def work() -> None:
            with self._free:
                self._waiting -= 1
                self._running += 1
                last: Event = Failed(JanusError("no last event"))
                try:
                    _check(handle, deadline)
                    post(Started((monotonic() - began) * 1e3))
                    for event in run():
                        if isinstance(event, Finished):
                            last = event
                            break
                        post(event)
                        _check(handle, deadline)
                except Exception as error:
                    last = Failed(error, used())
                finally:
                    self._running -= 1
                post(last)

        threading.Thread(target=work, name=f"request {next(self._number)}", daemon=True).start()
        return handle


def _drawing(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key in ("cfg_weight", "temperature", "top_k", "top_p", "steps")}


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else monotonic() + seconds


def _check(handle: Handle, deadline: float | None) -> None:
    if handle.cancelled.is_set():
        raise Cancelled("cancelled")
    if deadline is not None and monotonic() > deadline:
        raise DeadlineExceeded("the request was not done within the time that it was given; ask for less, or give it more time")


def load(path: Any = NANO, backend: Any = "auto", **limits: int | None) -> ThreadedModel:
    return ThreadedModel(_load(path, backend), **limits)


_load = janus_runtime.janus.load

if __name__ == "__main__":
    from janus_runtime.cli import main

    janus_runtime.janus.load = load  # type: ignore[assignment]
    main()
