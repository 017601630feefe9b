"""A model that does what a test says: each request waits for the test to post its events."""

import queue
import threading
from typing import Any

import numpy as np
from PIL import Image

from janus_runtime.decoding.scheduler import Status
from janus_runtime.drawing.request import DrawSettings, GeneratedImage
from janus_runtime.errors import Cancelled
from janus_runtime.events import Drawn, Event, Failed, Finished, Said, Started, Usage

USAGE = Usage(text_tokens=7, image_tokens=3, cached_tokens=2, completion_tokens=5)


class ScriptedHandle:
    def __init__(self, post: Any) -> None:
        self.cancelled = threading.Event()
        self._post = post
        self._lock = threading.Lock()
        self.ended = False

    def cancel(self) -> None:
        self.cancelled.set()
        self.end(Failed(Cancelled("cancelled"), USAGE))

    def end(self, event: Event) -> None:
        with self._lock:
            if not self.ended:
                self.ended = True
                self._post(event)


class Submitted:
    """A request that was submitted, and what it asks."""

    def __init__(self, asked: Any, post: Any, settings: dict[str, Any], manifest: Any) -> None:
        self.asked = asked
        self.settings = settings
        self.post = post
        self.handle = ScriptedHandle(post)
        self._manifest = manifest

    def draw(self, number: int = 0) -> None:
        size = self._manifest.image_output.size
        settings = DrawSettings.make(self._manifest)
        seed = self.settings["seed"] + number
        ids = np.zeros(self._manifest.image_output.num_tokens, np.int32)
        image = Image.new("RGB", (size, size), "red")
        self.post(Drawn(number, GeneratedImage(image, ids, None, self.asked, seed, settings, {"prefill": 1.0, "step": 2.0})))

    def finish(self, stop: Any = None) -> None:
        self.handle.end(Finished(USAGE, stop))

    def fail(self, error: Exception) -> None:
        self.handle.end(Failed(error, USAGE))

    def say(self, *chunks: str) -> None:
        for chunk in chunks:
            self.post(Said(chunk, (1,)))


class ScriptedModel:
    backend = "cpu"

    def __init__(self, manifest: Any) -> None:
        self.manifest = manifest
        self.error: Exception | None = None
        """Raised by what submits."""
        self.hold: threading.Event | None = None
        """Waited for by what submits, as the checks of a large request would."""
        self.submitted: list[Submitted] = []
        self.waiting = 0
        self._new: queue.Queue[Submitted] = queue.Queue()

    def next(self) -> Submitted:
        """The next request, which has begun."""
        request = self._new.get(timeout=60)
        request.post(Started(4.0))
        return request

    def status(self) -> Status:
        return Status(1, self.waiting, 2, 16, 1000, 4000, 100, 10, 20, 30, 40)

    def submit_drawing(self, prompt: str, n: int = 1, *, post: Any, **settings: Any) -> ScriptedHandle:
        return self._submit(prompt, post, {"n": n, **settings})

    def submit_answer(self, messages: Any, *, post: Any, **settings: Any) -> ScriptedHandle:
        return self._submit(messages, post, settings)

    def _submit(self, asked: Any, post: Any, settings: dict[str, Any]) -> ScriptedHandle:
        if self.error is not None:
            raise self.error
        request = Submitted(asked, post, settings, self.manifest)
        self.submitted.append(request)
        if self.hold is not None:
            self._new.put(request)
            assert self.hold.wait(60)
            return request.handle
        self._new.put(request)
        return request.handle
