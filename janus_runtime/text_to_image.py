"""Text to image: prompts -> prefill -> 576 guided draws -> pixels -> PIL images.

Letters: P prompts, n pictures in a batch, T prompt length, D hidden size.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .engines import Engines
from .errors import Cancelled, PromptError
from .image import postprocess
from .noise import Noise
from .prompt import Ids, Prompter
from .sampling import Sampler, pair

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """One picture. `image_ids` int32 [num_tokens].

    `timings` in ms: `load` (opening graphs, once), `prefill`, `steps` and `step` (one of them) of its batch, `decode` its own.
    """

    image: Image.Image
    image_ids: NDArray[np.int32]
    prompt: str
    seed: int
    cfg_weight: float
    sampler: Sampler
    timings: dict[str, float]


@dataclass(frozen=True)
class Request:
    """What to draw: `n` pictures of each prompt. See `Janus.generate`."""

    prompts: Sequence[str]
    n: int
    seed: int
    cfg_weight: float
    sampler: Sampler
    batch_size: int


@dataclass(frozen=True)
class Job:
    """One picture to draw: which prompt it belongs to and its own seed."""

    prompt: int
    seed: int


@dataclass
class ImageGenerator:
    engines: Engines
    prompter: Prompter
    _num_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self._num_tokens = self.engines.manifest.image_output.num_tokens

    def generate(self, request: Request, on_step: OnStep | None = None, cancel: threading.Event | None = None) -> Iterator[GeneratedImage]:
        """Yields pictures in order, prompt by prompt, at the end of each batch of at most `batch_size`.

        `on_step(step, total)` counts drawn ids over all batches. Raises PromptError, NumericalError, Cancelled.
        """
        ids = [self.prompter.image(prompt) for prompt in request.prompts]
        jobs = (Job(p, request.seed + i) for p in range(len(ids)) for i in range(request.n))
        num_batches = -(-len(ids) * request.n // request.batch_size)
        total = num_batches * self._num_tokens
        load = self.engines.prepare("image", "text_embed", "image_decoder")
        for index in range(num_batches):
            batch = list(islice(jobs, request.batch_size))
            start = time.perf_counter()
            steps: list[Ids] = []
            for drawn in self.stream(batch, ids, request):
                if not steps:
                    first = time.perf_counter()
                if cancel is not None and cancel.is_set():
                    raise Cancelled(f"cancelled after {index * self._num_tokens + len(steps)} of {total} steps")
                steps.append(drawn)
                if on_step is not None:
                    on_step(index * self._num_tokens + len(steps), total)
            drawn_at = time.perf_counter()
            timings = {"load": load, "prefill": (first - start) * 1e3, "steps": (drawn_at - first) * 1e3}
            timings["step"] = timings["steps"] / max(self._num_tokens - 1, 1)
            for job, row in zip(batch, np.stack(steps, axis=1), strict=True):
                yield self._finish(request, job, row, timings)

    def stream(self, batch: Sequence[Job], ids: Sequence[Ids], request: Request) -> Iterator[Ids]:
        """Yields the ids [n] of each of the `num_tokens` steps of one batch."""
        sampler, output = request.sampler, self.engines.manifest.image_output
        noise = Noise([job.seed for job in batch], output.num_ids)
        prompts = sorted({job.prompt for job in batch})
        longest = max(len(ids[p]) for p in prompts)
        length = longest + self._num_tokens
        session = self.engines.session("image", rows=2 * len(batch), max_length=length)
        if session.max_length < length:
            raise PromptError(
                f"a prompt of {longest} tokens and its picture of {self._num_tokens} were asked for, this backend holds "
                f"{session.max_length} together; use a shorter prompt, or build more with 'janus-export engines DIR --lengths {length}'"
            )

        # Two distinct rows a prompt are computed; every other picture of the prompt starts from a copy of them. Rows that a
        # backend gives beyond those asked for stay idle.
        cond = [ids[p] for p in prompts]
        rows = pair(cond, [self.prompter.blank(row) for row in cond])
        first = session.prefill([self.engines.embed_text(row) for row in rows])
        source = [2 * prompts.index(job.prompt) + half for job in batch for half in (0, 1)]
        # Sources never lie above their copies, so going down overwrites nothing that is still needed.
        for slot in reversed(range(len(source))):
            if source[slot] != slot:
                session.replicate(source[slot], slot)

        for drawn in session.draw(first[source], self._num_tokens, sampler, noise, request.cfg_weight):
            yield drawn[: len(batch)]

    def decode(self, image_ids: Ids) -> NDArray[np.float32]:
        """Ids [num_tokens] of one picture -> pixels [3, size, size]. One at a time: activations are large."""
        pixels: NDArray[np.float32] = self.engines["image_decoder"].run({"image_ids": image_ids[None]})["pixels"][0]
        return pixels

    def _finish(self, request: Request, job: Job, image_ids: Ids, timings: dict[str, float]) -> GeneratedImage:
        start = time.perf_counter()
        image = postprocess(self.decode(image_ids))
        timings = {**timings, "decode": (time.perf_counter() - start) * 1e3}
        return GeneratedImage(image, image_ids, request.prompts[job.prompt], job.seed, request.cfg_weight, request.sampler, timings)
