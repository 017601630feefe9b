"""The contract between export and runtime: manifest.json as frozen types, parsed strictly.

Everything a runtime needs to know about a model is here; nothing is guessed from names. A field that
is missing, unknown or of the wrong type is an error that names its place in the file.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from ..errors import BundleError
from .interface import FLAVOURS, Flavour, GraphKind, KvCache, NumberFormat, Sizes, TensorSpec, graph_name, interface
from .strict_json import LargeInt, parse

FORMAT = 7
MANIFEST = "manifest.json"
WEIGHTS = "weights.data"
TOKENIZER = "tokenizer.json"
# More steps than anybody needs; a number beyond is a mistake that would take long to find otherwise.
MAX_STEPS = 10_000
# Beyond it hardly a step is left for the end of a picture.
MAX_SHIFT = 100.0
GOLDENS = "goldens.npz"

Precision = Literal["fp32", "fp16", "int8", "int4"]
Task = Literal["generation", "understanding"]
Family = Literal["janus", "janus-pro", "janus-flow"]
Solver = Literal["euler", "ab2"]


@dataclass(frozen=True)
class Graph:
    """`inputs` and `outputs` are those of `interface.py`. `flavour`: one of `FLAVOURS`, for a language_model never null.

    `weight_bytes`: what one run reads of the weights file. Graphs may share weights. `judged`: what the exporter measured of a graph that
    it kept for being good enough, by name of the figure, which says its unit.
    """

    kind: GraphKind
    flavour: Flavour | None
    file: str
    format: NumberFormat
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    cache: KvCache | None
    weight_bytes: LargeInt
    judged: dict[str, float] | None = None


@dataclass(frozen=True)
class File:
    bytes: LargeInt
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where the weights came from: a hub id or folder name, its revision, layout and stored dtype; JanusFlow's VAE likewise."""

    name: str
    revision: str | None
    layout: str
    dtype: str
    vae: str | None


@dataclass(frozen=True)
class LanguageModel:
    """Sizes of the decoder. `max_length` counts prompt and answer together."""

    hidden_size: int
    num_layers: int
    num_heads: int
    head_size: int
    vocab_size: int
    max_length: int


@dataclass(frozen=True)
class Token:
    text: str
    id: int


@dataclass(frozen=True)
class Tokens:
    bos: Token
    eos: Token
    pad: Token
    begin_of_image: Token
    end_of_image: Token
    image_placeholder: Token


@dataclass(frozen=True)
class Template:
    """Pieces of a prompt. `system` is used for understanding only, as in the original."""

    system: str
    user: str
    assistant: str
    after_system: str
    after_user: str
    after_assistant: str


@dataclass(frozen=True)
class ImageInput:
    """How a picture becomes pixels for `vision_encoder`; `num_tokens` is what it becomes in the prompt.

    With `includes_begin` the first of them stands in place of begin-of-image.
    """

    size: int
    min_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: tuple[int, ...]
    num_tokens: int
    includes_begin: bool


@dataclass(frozen=True)
class ImageOutput:
    """A drawn picture: `num_tokens` = `grid`² places of the decoder, decoded to `size`² pixels.

    Each holds an id below `num_ids`, or a patch of latents where `num_ids` is null.
    """

    size: int
    grid: int
    num_tokens: int
    num_ids: int | None


@dataclass(frozen=True)
class Schedule:
    """A solver's `steps` by default, and how much their times crowd at the noise: `shift` 1 spaces them evenly."""

    steps: int
    shift: float


@dataclass(frozen=True)
class Solvers:
    """What each solver does where no number of steps is named: see `drawing/solver.py`."""

    euler: Schedule
    ab2: Schedule


@dataclass(frozen=True)
class Flow:
    """How JanusFlow draws: from noise [`latent_channels`, `latent_size`, `latent_size`] by steps of one of `solvers`, Euler's by default.

    `condition_size`: numbers that every step is conditioned on, beside the embedding of its time.
    """

    latent_channels: int
    latent_size: int
    condition_size: int
    solvers: Solvers

    def schedule(self, solver: Solver) -> Schedule:
        schedule: Schedule = getattr(self.solvers, solver)
        return schedule


@dataclass(frozen=True)
class Defaults:
    cfg_weight: float
    temperature: float
    max_tokens: int


@dataclass(frozen=True)
class Manifest:
    format: int
    name: str
    family: Family
    precision: Precision
    random_weights: bool
    tasks: tuple[Task, ...]
    source: Source
    language_model: LanguageModel
    tokens: Tokens
    template: Template
    image_input: ImageInput
    image_output: ImageOutput
    flow: Flow | None
    defaults: Defaults
    graphs: dict[str, Graph]
    files: dict[str, File]
    built_with: dict[str, str]

    @classmethod
    def from_json(cls, text: str, where: str = MANIFEST) -> "Manifest":
        """Raises BundleError on anything that is not exactly a manifest of this format."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{where} is not JSON ({error}); export the bundle again") from None
        if not isinstance(value, dict) or type(value.get("format")) is not int:
            raise BundleError(f"{where} has no format number; expected a manifest written by janus-export")
        if value["format"] != FORMAT:
            raise BundleError(
                f"{where} has format {value['format']}, this version reads format {FORMAT}; "
                "export the bundle again or install the janus-rt that wrote it"
            )
        manifest: Manifest = parse(cls, value, where)
        manifest._check(where)
        return manifest

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        path = folder / MANIFEST
        if not path.exists():
            raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}; make one with 'janus-export checkpoint SRC --out DIR'")
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise BundleError(f"{path} is not UTF-8 text ({error}); export the bundle again") from None
        return cls.from_json(text, str(path))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @cached_property
    def sizes(self) -> Sizes:
        return sizes_of(self.language_model, self.image_input, self.image_output, self.flow)

    def _check(self, where: str) -> None:
        """What types cannot say: paths stay inside, every part is listed, graphs are those of `interface.py`."""
        for name in self.files:
            path = PurePosixPath(name)
            if not name.isprintable() or not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
                raise BundleError(f"{where}: file path {name!r} leaves the bundle; paths must be relative, without '..'")
        for name in (WEIGHTS, TOKENIZER, GOLDENS, *(graph.file for graph in self.graphs.values())):
            if name not in self.files:
                raise BundleError(f"{where}: {name!r} is not listed under files; export the bundle again")
        kinds: set[str] = {graph.kind for graph in self.graphs.values()}
        for task in self.tasks:
            needed = _FLOW_NEEDED if self.flow and task == "generation" else _NEEDED[task]
            if missing := sorted(needed - kinds):
                raise BundleError(f"{where}: graphs {', '.join(missing)} are missing, which {task} needs; export the bundle again")
        for label, value, good in self._ranges():
            if not good:
                raise BundleError(f"{where}: {label} is {value!r}, which no Janus has; export the bundle again")
        for label, expected, got in chain(self._sizes(), self._interfaces()):
            if expected != got:
                raise BundleError(f"{where}: {label} does not fit: expected {expected}, got {got}")

    def _ranges(self) -> Iterator[tuple[str, object, bool]]:
        """(field, its value, whether that is possible)."""
        model, image, picture = self.language_model, self.image_input, self.image_output
        yield "tasks", self.tasks, len(self.tasks) > 0
        yield "language_model.num_layers", model.num_layers, 1 <= model.num_layers <= 1000
        yield "language_model.max_length", model.max_length, model.max_length >= 2
        yield "image_input.size", image.size, 1 <= image.size <= 16384
        yield "image_input.min_size", image.min_size, 1 <= image.min_size <= image.size
        yield "image_input.std", image.std, 0 not in image.std
        yield "image_input.background", image.background, all(value <= 255 for value in image.background)
        yield "image_output.grid", picture.grid, 1 <= picture.grid <= 1024
        yield "image_output.size", picture.size, 1 <= picture.size <= 16384
        yield "image_output.num_ids", picture.num_ids, (picture.num_ids is None) == (self.flow is not None)
        if self.flow:
            for solver in get_args(Solver):
                schedule = self.flow.schedule(solver)
                yield f"flow.solvers.{solver}.steps", schedule.steps, 1 <= schedule.steps <= MAX_STEPS
                yield f"flow.solvers.{solver}.shift", schedule.shift, 1 <= schedule.shift <= MAX_SHIFT
            yield "flow.latent_size", self.flow.latent_size, 1 <= self.flow.latent_size <= 4096
            yield "flow.latent_channels", self.flow.latent_channels, 1 <= self.flow.latent_channels <= 4096
            yield "flow.condition_size", self.flow.condition_size, 1 <= self.flow.condition_size <= 1 << 24
        yield "defaults.max_tokens", self.defaults.max_tokens, self.defaults.max_tokens >= 1
        yield "defaults.temperature", self.defaults.temperature, self.defaults.temperature >= 0
        for name in self.tokens.__dataclass_fields__:
            number = getattr(self.tokens, name).id
            yield f"tokens.{name}.id", number, number < model.vocab_size

    def _sizes(self) -> Iterator[tuple[str, object, object]]:
        """(field, what it must be, what it is) of every size that is stated more than once."""
        yield "image_output.num_tokens", self.image_output.grid**2, self.image_output.num_tokens
        for name in ("mean", "std", "background"):
            yield f"image_input.{name}", 3, len(getattr(self.image_input, name))

    def _interfaces(self) -> Iterator[tuple[str, object, object]]:
        """The same for what each graph takes and gives, tensor by tensor."""
        for name, graph in self.graphs.items():
            label, cached = f"graphs.{name}", graph.kind in ("language_model", "flow_step")
            yield label, graph_name(graph.kind, graph.flavour), name
            yield f"{label}.kind", "of this family", "of this family" if graph.kind not in _OF_OTHERS[self.flow is not None] else graph.kind
            flavours: tuple[Flavour | None, ...] = FLAVOURS.get(graph.kind, ())
            if graph.kind != "language_model":
                flavours = (None, *flavours)
            yield f"{label}.flavour", "one of the kind", "one of the kind" if graph.flavour in flavours else graph.flavour
            yield f"{label}.cache", "a cache" if cached else None, "a cache" if graph.cache else None
            expected = interface(
                graph.kind, graph.flavour, self.sizes, graph.format.activations, graph.cache.dtype if graph.cache else None
            )
            for side in ("inputs", "outputs"):
                wanted, got = getattr(expected, side), getattr(graph, side)
                yield f"{label}.{side}", list(wanted), list(got)
                for key, spec in wanted.items():
                    yield f"{label}.{side}.{key}", (spec.dtype, spec.shape), (got[key].dtype, got[key].shape)
            yield f"{label}.cache", expected.cache, graph.cache


# By whether pictures are drawn by a flow: the graphs that only the other way to draw has.
_OF_OTHERS: dict[bool, set[GraphKind]] = {
    True: {"image_embed", "image_head", "image_draw", "image_encoder", "image_preview"},
    False: {"time_embed", "flow_step"},
}
_FLOW_NEEDED = {"text_embed", "time_embed", "flow_step", "image_decoder"}
_NEEDED: dict[Task, set[str]] = {
    "generation": {"text_embed", "image_embed", "language_model", "image_head", "image_decoder"},
    "understanding": {"text_embed", "vision_encoder", "language_model", "text_head"},
}


def sizes_of(model: LanguageModel, image_input: ImageInput, image_output: ImageOutput, flow: Flow | None) -> Sizes:
    """What the shapes of graphs are made of."""
    return Sizes(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_heads=model.num_heads,
        head_size=model.head_size,
        vocab_size=model.vocab_size,
        input_size=image_input.size,
        input_tokens=image_input.num_tokens,
        output_size=image_output.size,
        output_tokens=image_output.num_tokens,
        num_ids=image_output.num_ids,
        latent_channels=flow.latent_channels if flow else None,
        latent_size=flow.latent_size if flow else None,
        condition_size=flow.condition_size if flow else None,
    )
