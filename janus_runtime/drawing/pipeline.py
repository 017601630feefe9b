"""Text to image: prompts -> batches -> a drawer, step by step -> pixels -> PIL images."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice
from typing import Any

from numpy.typing import NDArray

from ..decoding.engines import Engines
from ..errors import Cancelled
from ..pictures.image import postprocess
from ..prompt import Ids, Prompter
from .flow import FlowDrawer
from .request import Drawer, DrawRequest, GeneratedImage, Job, OnStep, ReferenceFeatures
from .tokens import TokenDrawer


class ImagePipeline:
    def __init__(self, engines: Engines, prompter: Prompter) -> None:
        self.prompter = prompter
        flow = engines.manifest.flow
        self.drawer: Drawer = FlowDrawer(engines, prompter.replaced) if flow else TokenDrawer(engines, prompter)

    def stream(
        self, request: DrawRequest, on_step: OnStep | None = None, cancel: threading.Event | None = None
    ) -> Generator[GeneratedImage, None, None]:
        """Yields pictures in order, prompt by prompt, at the end of each batch of at most `batch_size`.

        `on_step(step, total)` counts steps over all batches. Raises PromptError at once, NumericalError and Cancelled later.
        """
        ids = [self.prompter.image(prompt, request.pixels is not None) for prompt in request.prompts]
        return self._draw(request, ids, on_step, cancel)

    def _draw(
        self, request: DrawRequest, ids: Sequence[Ids], on_step: OnStep | None, cancel: threading.Event | None
    ) -> Generator[GeneratedImage, None, None]:
        batches = list(self._batches(ids, request))
        num_steps = self.drawer.num_steps(request.settings)
        total = len(batches) * num_steps
        before = {"load": self.drawer.prepare(request.pixels is not None)}
        reference: ReferenceFeatures = ()
        if request.pixels is not None:
            start = time.perf_counter()
            reference = self.drawer.encode_reference(request.pixels)
            before["encode"] = (time.perf_counter() - start) * 1e3
        for index, batch in enumerate(batches):
            start = time.perf_counter()
            steps: list[Any] = []
            # Closed wherever this ends: a session holds memory.
            with closing(self.drawer.stream(batch, ids, request.settings, reference)) as stream:
                for drawn in stream:
                    if not steps:
                        first = time.perf_counter()
                    if cancel is not None and cancel.is_set():
                        raise Cancelled(f"cancelled after {index * num_steps + len(steps)} of {total} steps")
                    steps.append(drawn)
                    if on_step is not None:
                        on_step(index * num_steps + len(steps), total)
            drawn_at = time.perf_counter()
            timings = {**before, "prefill": (first - start) * 1e3, "steps": (drawn_at - first) * 1e3}
            timings["step"] = timings["steps"] / max(num_steps - 1, 1)
            for job, row in zip(batch, self.drawer.collect(steps), strict=True):
                yield self._finish(request, job, row, timings)

    def _batches(self, ids: Sequence[Ids], request: DrawRequest) -> Iterator[list[Job]]:
        """The pictures in order, cut where a batch is full or the next prompt must not join it."""
        for _, prompts in groupby(range(len(ids)), lambda prompt: self.drawer.batch_key(ids[prompt])):
            jobs = (Job(prompt, request.seed + i) for prompt in prompts for i in range(request.n))
            while batch := list(islice(jobs, request.batch_size)):
                yield batch

    def _finish(self, request: DrawRequest, job: Job, drawn: NDArray[Any], timings: dict[str, float]) -> GeneratedImage:
        start = time.perf_counter()
        image = postprocess(self.drawer.decode(drawn))
        decode = (time.perf_counter() - start) * 1e3
        by_flow = request.settings.steps is not None
        return GeneratedImage(
            image=image,
            image_ids=None if by_flow else drawn,
            latents=drawn if by_flow else None,
            prompt=request.prompts[job.prompt],
            seed=job.seed,
            settings=request.settings,
            timings={**timings, "decode": decode},
        )
