"""`load()` and `Janus`: a bundle on a backend, ready to draw and to answer."""

import functools
import inspect
import logging
import operator
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec

from .backends import Backend, BackendName, open_backend
from .bundle.bundle import NANO, Bundle
from .bundle.manifest import TOKENIZER, Manifest, Solver, Task
from .bundle.plans import built_for
from .chat import Answer, Asker, Chat
from .checks.latency import Timing, stages, time_stages
from .checks.verify import Check, verify_goldens
from .decoding.engines import Engines
from .decoding.handle import Handle, Post
from .decoding.scheduler import Limits, Scheduler, Status
from .drawing.drawer import Drawer
from .drawing.drawing import Drawing, pictures
from .drawing.flow import FlowDrawer
from .drawing.request import DrawRequest, DrawSettings, GeneratedImage, OnStep
from .drawing.tokens import TokenDrawer
from .errors import BackendError, BundleError
from .pictures.image import Picture, as_pictures, open_image, preprocess
from .prompt import Message, Prompter
from .sampling.noise import check_seed
from .sampling.sampler import Floats, Sampler

_log = logging.getLogger("janus_runtime")

P = ParamSpec("P")

_BATCH_SIZE = 8


def _collect(stream: Callable[P, Iterator[GeneratedImage]]) -> Callable[P, list[GeneratedImage]]:
    """`stream` as a method that returns all pictures at once."""

    @functools.wraps(stream)
    def generate(*arguments: P.args, **settings: P.kwargs) -> list[GeneratedImage]:
        return list(stream(*arguments, **settings))

    generate.__name__, generate.__qualname__ = "generate", "Janus.generate"
    generate.__doc__ = "Draws `n` pictures of each prompt and returns all of them, in order. Takes what `stream` takes; see there."
    returned = inspect.signature(stream).replace(return_annotation=list[GeneratedImage])
    generate.__signature__ = returned  # type: ignore[attr-defined]
    return generate


class Janus:
    """One model on one backend. Methods may be called from several threads; their calls share the steps of the decoder.

    A fork does not copy the threads of a backend: in a forked process a model of the parent raises JanusError. Load it there.
    """

    def __init__(self, engines: Engines, prompter: Prompter, limits: Limits = Limits()) -> None:  # noqa: B008, it is frozen
        self._engines = engines
        self._prompter = prompter
        self._scheduler = Scheduler(engines, limits)
        flow = engines.manifest.flow
        self._drawer: Drawer = FlowDrawer(engines, prompter.replaced) if flow else TokenDrawer(engines, prompter, limits.retained_bytes)
        self._asker = Asker(engines, prompter, self._scheduler)

    @property
    def manifest(self) -> Manifest:
        return self._engines.manifest

    @property
    def backend(self) -> str:
        """Which backend runs: `cpu`, `cuda` or `tensorrt`."""
        return self._engines.backend.name

    @property
    def backend_description(self) -> str:
        return self._engines.backend.description

    @property
    def bundle_path(self) -> Path:
        return self._engines.bundle.path

    @property
    def plans(self) -> list[str]:
        """Which TensorRT plans the bundle holds, as `<gpu>-<version>`; each runs on that GPU with that version only."""
        return built_for(self.bundle_path)

    def stream(
        self,
        prompt: str | Sequence[str],
        n: int = 1,
        *,
        seed: int = 0,
        cfg_weight: float | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        solver: Solver | None = None,
        steps: int | None = None,
        image: Picture | None = None,
        exif_orientation: bool = True,
        image_weight: float | None = None,
        batch_size: int | None = None,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[GeneratedImage, None, None]:
        """Draws `n` pictures of each prompt and yields them as they are done, in order, prompt by prompt.

        Settings, prompts and `image` are checked before it returns. It keeps no picture that it has yielded; to stop early, close
        the generator, which frees the memory of the batch at once.

        Picture i of a prompt is picture 0 with `seed + i`. `cfg_weight` and `temperature` default to the model's;
        temperature 0 is greedy; `top_k` 0 and `top_p` 1 sample from all ids, as the original does. `solver`, `euler` by default or
        `ab2`, which needs fewer `steps`, and `steps`, by default the bundle's for that solver, are JanusFlow's, which has no ids and takes
        none of these three. `image` is a picture that the prompts speak of, for checkpoints trained to draw
        from one, such as Janus-4o, on the CPU where they draw by ids; `exif_orientation` turns it upright
        as its EXIF says; `image_weight`, by default 5, is the weight of its visual features relative to its ids. `batch_size`
        pictures, by default 8 or what the plans of TensorRT hold, are drawn at once: more is faster in all and takes more memory.
        `on_step(step, total)` reports progress over all batches; setting `cancel` ends the drawing at the next step, JanusFlow's within
        a step that nobody else is in. Raises at once
        PromptError, ImageError, BackendError where it cannot draw from a picture, and ValueError on settings out of range; while it
        is iterated over NumericalError, Cancelled and BackendError.
        """
        request = self._draw_request(
            [prompt] if isinstance(prompt, str) else list(prompt),
            operator.index(n),
            seed,
            self._default_batch_size() if batch_size is None else operator.index(batch_size),
            image,
            exif_orientation,
            cfg_weight=cfg_weight,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            solver=solver,
            steps=steps,
            image_weight=image_weight,
        )
        drawing = Drawing(self._engines, self._drawer, self._prompter, request, progress=on_step is not None or cancel is not None)
        return self._pictures(drawing, on_step, cancel)

    generate = _collect(stream)

    def _pictures(self, drawing: Drawing, on_step: OnStep | None, cancel: threading.Event | None) -> Generator[GeneratedImage, None, None]:
        self._scheduler.submit(drawing)
        yield from pictures(drawing, on_step, cancel)

    def submit_drawing(
        self,
        prompt: str,
        n: int = 1,
        *,
        post: Post,
        seed: int = 0,
        cfg_weight: float | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        solver: Solver | None = None,
        steps: int | None = None,
        image: Picture | None = None,
        image_weight: float | None = None,
        partial_images: int = 0,
        progress: bool = False,
        deadline_s: float | None = None,
    ) -> Handle:
        """Draws as `stream` does, for a caller who does not wait: events go to `post`, in order, from threads of the model, which they hold
        up. `partial_images` times on the way each picture is shown as it is then; `progress` reports steps; after `deadline_s` seconds
        the request fails.

        Takes and raises at once what `stream` does, and Busy where too many requests wait.
        """
        request = self._draw_request(
            [prompt],
            n,
            seed,
            n,
            image,
            cfg_weight=cfg_weight,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            solver=solver,
            steps=steps,
            image_weight=image_weight,
        )
        drawing = Drawing(
            self._engines,
            self._drawer,
            self._prompter,
            request,
            post=post,
            deadline_s=deadline_s,
            progress=progress,
            partial_images=partial_images,
            show_beside=self._scheduler.show_beside,
        )
        self._scheduler.submit(drawing)
        return drawing.handle

    def submit_answer(
        self,
        messages: Sequence[Message],
        *,
        post: Post,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        deadline_s: float | None = None,
    ) -> Handle:
        """Answers the last message of a whole conversation, for a caller who does not wait: see `submit_drawing`. What it shares with
        earlier requests from its start on, pictures included, is not computed again while its keys are there.

        Raises PromptError, ImageError, ValueError, ConversationFull and Busy at once.
        """
        self._require("understanding")
        request = self._asker.ask(
            self._prompter.conversation(messages),
            [image for message in messages for image in message.images],
            max_tokens=max_tokens,
            sampler=Sampler(temperature, top_k, top_p),
            seed=seed,
            post=post,
            deadline_s=deadline_s,
        )
        self._scheduler.submit(request)
        return request.handle

    def preload(self) -> float:
        """Opens every graph that requests need, which otherwise the first ones do -> ms it took."""
        graphs: set[str] = set()
        if "generation" in self.manifest.tasks:
            graphs.update(self._drawer.graphs(from_image=False, previews=True))
        if "understanding" in self.manifest.tasks:
            graphs.update((*self._engines.graphs_of("text"), "vision_encoder"))
        return self._engines.open(*sorted(graphs))

    def status(self) -> Status:
        """How many requests run and wait, what they use, and what was computed so far."""
        return self._scheduler.status()

    def _draw_request(
        self,
        prompts: Sequence[str],
        n: int,
        seed: int,
        batch_size: int,
        image: Picture | None,
        exif_orientation: bool = True,
        **settings: Any,
    ) -> DrawRequest:
        """`settings` are those of `DrawSettings.make`. Raises BundleError, ValueError, ImageError and BackendError."""
        self._require("generation")
        if n < 1 or batch_size < 1 or not prompts:
            raise ValueError(f"got {len(prompts)} prompts, n {n}, batch_size {batch_size}; expected 1 or more of each")
        pixels = None if image is None else self._pixels_to_draw_from(image, exif_orientation)
        checked = DrawSettings.make(self.manifest, pixels, **settings)
        return DrawRequest(prompts, n, check_seed(seed, n), batch_size, checked, pixels)

    def _default_batch_size(self) -> int:
        limits = self._engines.backend.limits
        return _BATCH_SIZE if limits is None or limits.rows is None else max(min(_BATCH_SIZE, limits.rows[-1] // 2), 1)

    def _pixels_to_draw_from(self, image: Picture, exif_orientation: bool) -> Floats:
        self._require("understanding")
        if not self.manifest.flow and self._engines.backend.limits is not None:
            raise BackendError(
                f"image-to-image needs 3 rows a picture and the {self.backend} backend draws with 2; load the bundle with backend=cpu"
            )
        pixels = preprocess(open_image(image, exif_orientation), self.manifest.image_input)
        _log.warning("drawing from a picture is for checkpoints trained for it, such as Janus-4o; others hardly follow it")
        return pixels

    def describe(
        self,
        images: Picture | Sequence[Picture],
        question: str = "Describe this image.",
        *,
        exif_orientation: bool = True,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Asks one question about one or several pictures; iterate over the result for text as it comes.

        Pictures are turned upright as their EXIF says; `exif_orientation=False` leaves them as stored, as the original does.
        Pictures and prompt are read before it returns. Raises ImageError, PromptError, ValueError, NumericalError, Cancelled.
        """
        pictures = as_pictures(images)
        if not pictures:
            raise ValueError("describe got no picture; expected at least one")
        self._require("understanding")
        request = self._asker.ask(
            self._prompter.question(question, len(pictures)),
            pictures,
            exif_orientation=exif_orientation,
            max_tokens=max_tokens,
            sampler=Sampler(temperature, top_k, top_p),
            seed=seed,
        )
        return self._asker.answer(request, 0, cancel)[1]

    def chat(self, max_length: int | None = None) -> Chat:
        """A conversation with a cache for `max_length` tokens, pictures and answers included (default: the model's limit)."""
        self._require("understanding")
        limit = self.manifest.language_model.max_length
        length = limit if max_length is None else max_length
        if not 1 < length <= limit:
            raise ValueError(f"max_length is {length}; expected 2 to {limit}")
        return Chat(self._asker, length)

    def verify_hashes(self) -> Iterator[str]:
        """Yields each file's name once its hash was found right. Raises BundleError at the first that is not."""
        return self._engines.bundle.verify_hashes()

    def verify_goldens(self) -> Iterator[Check]:
        """Yields one check a graph: this backend against the torch reference."""
        return verify_goldens(self._engines)

    def _require(self, task: Task) -> None:
        if task not in self.manifest.tasks:
            raise BundleError(
                f"{self.bundle_path} was exported for {' and '.join(self.manifest.tasks)} only, not for {task}; export again without --only"
            )

    def time_stages(self, rows: int = 2, seconds: float = 30.0) -> list[Timing]:
        """How long every stage takes: see `checks/latency.py`. `rows` of an image step: two for each picture under guidance."""
        return time_stages(list(stages(self._engines, rows)), runs=1000, seconds=seconds)

    def close(self) -> None:
        """Ends every request and frees everything."""
        self._scheduler.close()
        self._engines.close()

    def __enter__(self) -> "Janus":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def load(
    path: str | Path = NANO,
    backend: BackendName = "auto",
    *,
    max_rows: int | None = None,
    memory_bytes: int | None = None,
    max_queue: int | None = None,
) -> Janus:
    """Opens a bundle, by default janus-nano, which is built in. Graphs are read when first used.

    What runs at once is limited where `max_rows` of the decoder (a picture takes two under guidance, an answer one) or `memory_bytes` of
    its cache are given: more waits, up to `max_queue` requests. Raises BundleError if the folder is not a whole bundle, BackendError if
    the backend cannot run here, ValueError on limits below 1.
    """
    for name, value in (("max_rows", max_rows), ("memory_bytes", memory_bytes), ("max_queue", max_queue)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
    bundle = Bundle.open(path)
    opened = open_backend(backend, bundle)
    if advice := opened.advice(bundle):
        _log.warning(advice)
    return janus_over(bundle, opened, Limits(max_rows, memory_bytes, max_queue))


def janus_over(bundle: Bundle, backend: Backend, limits: Limits = Limits()) -> Janus:  # noqa: B008, it is frozen
    """An open bundle on an open backend. Raises BundleError if its tokenizer is not a whole one."""
    with bundle.unchanged(TOKENIZER):
        prompter = Prompter(bundle.manifest, bundle.path / TOKENIZER)
    return Janus(Engines(bundle, backend), prompter, limits)
