"""The contract between export and runtime: manifest.json as frozen types, parsed strictly.

Everything a runtime needs to know about a model is here; nothing is guessed from names. A field that
is missing, unknown or of the wrong type is an error that names its place in the file.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ..errors import BundleError
from .strict_json import parse

FORMAT = 4
MANIFEST = "manifest.json"
WEIGHTS = "weights.data"
TOKENIZER = "tokenizer.json"
# More steps than anybody needs; a number beyond is a mistake that would take long to find otherwise.
MAX_STEPS = 10_000
GOLDENS = "goldens.npz"

Precision = Literal["fp32", "fp16", "int8", "int4"]
Task = Literal["generation", "understanding"]
Family = Literal["janus", "janus-pro", "janus-flow"]
Times = Literal["exact", "bf16"]
DType = Literal["float32", "float16", "int64", "int32", "int8", "bool"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. A string in `shape` is a dimension that varies between calls."""

    dtype: DType
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """`weight_bytes`: what one run reads of the weights file. Graphs may share weights."""

    file: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    weight_bytes: int


@dataclass(frozen=True)
class File:
    bytes: int
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
    """Sizes of the decoder and its cache, whose dtype is that of a flavour's `past_…` inputs.

    `max_length` counts prompt and answer together.
    """

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
class Flow:
    """How JanusFlow draws: from noise [`latent_channels`, `latent_size`, `latent_size`] by Euler steps, `steps` by default.

    `times`: `exact` ones, or rounded to `bf16` with their step as the published scripts do.
    """

    latent_channels: int
    latent_size: int
    steps: int
    times: Times


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

    def _check(self, where: str) -> None:
        """What types cannot say: paths stay inside, every part is listed, sizes are those of the graphs."""
        for name in self.files:
            path = PurePosixPath(name)
            if not name.isprintable() or not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
                raise BundleError(f"{where}: file path {name!r} leaves the bundle; paths must be relative, without '..'")
        for name in (WEIGHTS, TOKENIZER, GOLDENS, *(graph.file for graph in self.graphs.values())):
            if name not in self.files:
                raise BundleError(f"{where}: {name!r} is not listed under files; export the bundle again")
        for task in self.tasks:
            kinds = {name.split(".")[0] for name in self.graphs}
            needed = _FLOW_NEEDED if self.flow and task == "generation" else _NEEDED[task]
            if missing := sorted(needed - kinds):
                raise BundleError(f"{where}: graphs {', '.join(missing)} are missing, which {task} needs; export the bundle again")
        for label, value, good in self._ranges():
            if not good:
                raise BundleError(f"{where}: {label} is {value!r}, which no Janus has; export the bundle again")
        for label, expected, got in self._sizes():
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
            yield "flow.steps", self.flow.steps, 1 <= self.flow.steps <= MAX_STEPS
            yield "flow.latent_size", self.flow.latent_size, 1 <= self.flow.latent_size <= 4096
            yield "flow.latent_channels", self.flow.latent_channels, 1 <= self.flow.latent_channels <= 4096
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
        model, graphs = self.language_model, self.graphs
        cache = ("rows", model.num_heads, "max_length", model.head_size)
        for name, graph in graphs.items():
            if name.startswith("language_model."):
                got = {key: spec for key, spec in graph.inputs.items() if key.startswith(("past_key_", "past_value_"))}
                yield f"graphs.{name}.inputs", model.num_layers * 2, len(got)
                for key, spec in got.items():
                    yield f"graphs.{name}.inputs.{key}", (cache, got["past_key_0"].dtype), (spec.shape, spec.dtype)
                yield f"graphs.{name}.inputs.embeds", ("rows", "tokens", model.hidden_size), _shape(graph.inputs, "embeds")
        hidden, embeds = ("rows", model.hidden_size), ("rows", "tokens", model.hidden_size)
        picture = self.image_output
        drawn: tuple[tuple[str, str, str, tuple[int | str, ...]], ...]
        if self.flow:
            latents = ("images", self.flow.latent_channels, self.flow.latent_size, self.flow.latent_size)
            pairs = ("images", 2, *cache[1:])
            drawn = (
                ("time_embed", "outputs", "time_embeds", ("steps", model.hidden_size)),
                ("flow_step", "inputs", "latents", latents),
                ("flow_step", "inputs", "prefix_embeds", ("images", 2, "tokens", model.hidden_size)),
                *(("flow_step", "inputs", f"past_{part}_{layer}", pairs) for layer in range(model.num_layers) for part in ("key", "value")),
                ("flow_step", "outputs", "next_latents", latents),
                ("image_decoder", "inputs", "latents", latents),
            )
        else:
            drawn = (
                ("image_embed", "inputs", "image_ids", ("rows", "tokens")),
                ("image_embed", "outputs", "embeds", embeds),
                ("image_head", "inputs", "hidden", hidden),
                ("image_head", "outputs", "logits", ("rows", picture.num_ids or 0)),
                ("image_decoder", "inputs", "image_ids", ("images", picture.num_tokens)),
            )
        for name, side, key, shape in (
            ("text_embed", "inputs", "text_ids", ("rows", "tokens")),
            ("text_embed", "outputs", "embeds", embeds),
            ("text_head", "inputs", "hidden", hidden),
            ("text_head", "outputs", "logits", ("rows", model.vocab_size)),
            ("vision_encoder", "inputs", "pixels", ("images", 3, self.image_input.size, self.image_input.size)),
            ("vision_encoder", "outputs", "embeds", ("images", self.image_input.num_tokens, model.hidden_size)),
            *drawn,
            ("image_decoder", "outputs", "pixels", ("images", 3, picture.size, picture.size)),
        ):
            if name in graphs:
                yield f"graphs.{name}.{side}.{key}", shape, _shape(getattr(graphs[name], side), key)
        for name, graph in graphs.items():
            # Backends make room for outputs before they run.
            unknown = _letters(graph.outputs) - _letters(graph.inputs)
            yield f"graphs.{name}.outputs, sizes that no input has,", (), tuple(sorted(unknown))


_FLOW_NEEDED = {"text_embed", "time_embed", "flow_step", "image_decoder"}
_NEEDED: dict[Task, set[str]] = {
    "generation": {"text_embed", "image_embed", "language_model", "image_head", "image_decoder"},
    "understanding": {"text_embed", "vision_encoder", "language_model", "text_head"},
}


def _letters(specs: dict[str, TensorSpec]) -> set[str]:
    return {size for spec in specs.values() for size in spec.shape if isinstance(size, str)}


def _shape(specs: dict[str, TensorSpec], name: str) -> tuple[int | str, ...] | None:
    return specs[name].shape if name in specs else None
