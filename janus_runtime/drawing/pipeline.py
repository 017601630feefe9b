"""Text to image: prompts -> batches -> a drawing, step by step -> pixels -> PIL images.

Letters: P prompts, n pictures in a batch, T prompt length, D hidden size.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..decoding.engines import Engines
from ..errors import Cancelled, PromptError
from ..pictures.image import postprocess
from ..prompt import Ids, Prompter, splice
from ..sampling.noise import Noise
from ..sampling.sampler import Floats, Sampler, pair
from .flow import FlowDrawing, Seen

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """One picture: `image_ids` int32 [num_tokens] drawn by `sampler`, or `latents` fp32 [c, s, s] of JanusFlow after `steps`.

    `image_sha256` is of the pixels [3, size, size] that the model saw of a picture to draw from, `image_weight` what they counted
    beside its ids; None without. `timings` in ms: `load` (opening graphs, once), `encode` (of such a picture, once), `prefill` (to
    the first step's end), `steps` and `step` (one of them) of its batch, `decode` its own.
    """

    image: Image.Image
    image_ids: NDArray[np.int32] | None
    latents: NDArray[np.float32] | None
    prompt: str
    seed: int
    cfg_weight: float
    sampler: Sampler | None
    steps: int
    image_sha256: str | None
    image_weight: float | None
    timings: dict[str, float]


@dataclass(frozen=True)
class Request:
    """What to draw: `n` pictures of each prompt. See `Janus.generate`."""

    prompts: Sequence[str]
    n: int
    seed: int
    cfg_weight: float
    batch_size: int
    sampler: Sampler | None = None
    steps: int | None = None
    pixels: Floats | None = None
    """[3, size, size] of a picture that the prompts speak of."""
    image_weight: float | None = None

    @cached_property
    def image_sha256(self) -> str | None:
        return None if self.pixels is None else hashlib.sha256(self.pixels.tobytes()).hexdigest()


@dataclass(frozen=True)
class Job:
    """One picture to draw: which prompt it belongs to and its own seed."""

    prompt: int
    seed: int


class Drawing(Protocol):
    """How a family draws one batch."""

    def prepare(self, sees: bool) -> float:
        """Opens every graph it needs, to `see` too -> ms it took."""

    def num_steps(self, request: Request) -> int: ...

    def batch_key(self, ids: Ids) -> int:
        """Only prompts with equal keys are drawn in one batch, so that company changes no bit of a picture."""

    def see(self, pixels: Floats) -> Seen:
        """What goes into prompts of a picture that they speak of, [tokens, D] each."""

    def stream(self, batch: Sequence[Job], ids: Sequence[Ids], request: Request, seen: Seen) -> Iterator[NDArray[Any]]:
        """Yields what each step gives [n, ...]. `ids` of all prompts, `seen` from `see` or empty."""

    def collect(self, steps: list[Any]) -> NDArray[Any]:
        """What all steps gave -> what is decoded, of every picture [n, ...]."""

    def decode(self, drawn: Any) -> Floats:
        """One picture's -> pixels [3, size, size]. One at a time: activations are large."""


class ImageGenerator:
    def __init__(self, engines: Engines, prompter: Prompter) -> None:
        self.prompter = prompter
        flow = engines.manifest.flow
        self.drawing: Drawing = FlowDrawing(engines, prompter.replaced) if flow else IdDrawing(engines, prompter)

    def stream(
        self, request: Request, on_step: OnStep | None = None, cancel: threading.Event | None = None
    ) -> Generator[GeneratedImage, None, None]:
        """Yields pictures in order, prompt by prompt, at the end of each batch of at most `batch_size`.

        `on_step(step, total)` counts steps over all batches. Raises PromptError at once, NumericalError and Cancelled later.
        """
        ids = [self.prompter.image(prompt, request.pixels is not None) for prompt in request.prompts]
        return self._draw(request, ids, on_step, cancel)

    def _draw(
        self, request: Request, ids: Sequence[Ids], on_step: OnStep | None, cancel: threading.Event | None
    ) -> Generator[GeneratedImage, None, None]:
        batches = list(self._batches(ids, request))
        num_steps = self.drawing.num_steps(request)
        total = len(batches) * num_steps
        before = {"load": self.drawing.prepare(request.pixels is not None)}
        seen: Seen = ()
        if request.pixels is not None:
            start = time.perf_counter()
            seen = self.drawing.see(request.pixels)
            before["encode"] = (time.perf_counter() - start) * 1e3
        for index, batch in enumerate(batches):
            start = time.perf_counter()
            steps: list[Any] = []
            for drawn in self.drawing.stream(batch, ids, request, seen):
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
            for job, row in zip(batch, self.drawing.collect(steps), strict=True):
                yield self._finish(request, job, row, num_steps, timings)

    def _batches(self, ids: Sequence[Ids], request: Request) -> Iterator[list[Job]]:
        """The pictures in order, cut where a batch is full or the next prompt must not join it."""
        for _, prompts in groupby(range(len(ids)), lambda prompt: self.drawing.batch_key(ids[prompt])):
            jobs = (Job(prompt, request.seed + i) for prompt in prompts for i in range(request.n))
            while batch := list(islice(jobs, request.batch_size)):
                yield batch

    def _finish(self, request: Request, job: Job, drawn: NDArray[Any], num_steps: int, timings: dict[str, float]) -> GeneratedImage:
        start = time.perf_counter()
        image = postprocess(self.drawing.decode(drawn))
        decode = (time.perf_counter() - start) * 1e3
        return GeneratedImage(
            image=image,
            image_ids=drawn if request.sampler else None,
            latents=None if request.sampler else drawn,
            prompt=request.prompts[job.prompt],
            seed=job.seed,
            cfg_weight=request.cfg_weight,
            sampler=request.sampler,
            steps=num_steps,
            image_sha256=request.image_sha256,
            image_weight=request.image_weight,
            timings={**timings, "decode": decode},
        )


class IdDrawing:
    """Janus and Janus-Pro: one id after another. See `Drawing`."""

    def __init__(self, engines: Engines, prompter: Prompter) -> None:
        self.engines = engines
        self.prompter = prompter
        self._num_tokens = engines.manifest.image_output.num_tokens

    def prepare(self, sees: bool) -> float:
        return self.engines.prepare("image", "text_embed", "image_decoder", *(("vision_encoder", "image_encoder") if sees else ()))

    def num_steps(self, request: Request) -> int:
        return self._num_tokens

    def batch_key(self, ids: Ids) -> int:
        return 0  # Attention ends at each row's own length: prompts of any lengths share a batch.

    def see(self, pixels: Floats) -> Seen:
        """As it is seen, and as the ids that would draw it."""
        image_ids = self.engines["image_encoder"].run({"pixels": pixels[None]})["image_ids"]
        return [self.engines.encode_image(pixels), self.engines["image_embed"].run({"image_ids": image_ids})["embeds"][0]]

    def stream(self, batch: Sequence[Job], ids: Sequence[Ids], request: Request, seen: Seen) -> Iterator[Ids]:
        """Yields the ids [n] of each of the `num_tokens` steps of one batch."""
        num_ids = self.engines.manifest.image_output.num_ids
        assert num_ids is not None and request.sampler is not None
        noise = Noise([job.seed for job in batch], num_ids)
        prompts = sorted({job.prompt for job in batch})
        longest = max(len(ids[p]) for p in prompts)
        length = longest + self._num_tokens
        # Distinct rows of a prompt are computed once; every other picture of the prompt starts from a copy of them. Rows that a
        # backend gives beyond those asked for stay idle.
        rows = [self._rows(ids[p], seen) for p in prompts]
        each = len(rows[0])
        session = self.engines.session("image", rows=each * len(batch), max_length=length)
        if session.max_length < length:
            raise PromptError(
                f"a prompt of {longest} tokens and its picture of {self._num_tokens} were asked for, this backend holds "
                f"{session.max_length} together; use a shorter prompt, or build more with 'janus-export engines DIR --lengths {length}'"
            )
        first = session.prefill([row for group in rows for row in group])
        source = [each * prompts.index(job.prompt) + row for job in batch for row in range(each)]
        # Sources never lie above their copies, so going down overwrites nothing that is still needed.
        for slot in reversed(range(len(source))):
            if source[slot] != slot:
                session.replicate(source[slot], slot)

        for drawn in session.draw(first[source], self._num_tokens, request.sampler, noise, request.cfg_weight, request.image_weight):
            yield drawn[: len(batch)]

    def _rows(self, ids: Ids, seen: Seen) -> list[NDArray[Any]]:
        """The embedded rows of one prompt that guidance works on: see `sampling.guide` and `guide_from_image`."""
        cond, uncond = self.engines.embed_text(ids), self.engines.embed_text(self.prompter.blank(ids))
        if not seen:
            return pair([cond], [uncond])
        features, drawn = seen
        splice(cond, ids, self.prompter.replaced, features)
        both = cond.copy()
        splice(both, ids, [self.prompter.tokens.pad.id], drawn)
        return [both, cond, uncond]

    def collect(self, steps: list[Ids]) -> Ids:
        return np.stack(steps, axis=1)

    def decode(self, drawn: Ids) -> Floats:
        pixels: Floats = self.engines["image_decoder"].run({"image_ids": drawn[None]})["pixels"][0]
        return pixels
