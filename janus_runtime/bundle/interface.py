"""Inputs and outputs of every graph, as functions of a model's sizes: the one table of them.

The exporter traces graphs to these, `Manifest` checks a bundle against them, and the tables of docs/bundle.md are printed from them.
Letters, sizes that vary between calls: `rows` sequences, `tokens` new to each, `outputs` hidden states asked for, `max_length` places of
a cache, `images` pictures, `steps` of a drawing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

DType = Literal["float32", "float16", "int64", "int32", "int8", "bool"]
Weights = Literal["float32", "float16", "int8", "int4"]
Flavour = Literal["gqa", "gqa_cuda", "slice", "inplace", "cpu"]
GraphKind = Literal[
    "text_embed",
    "vision_encoder",
    "language_model",
    "text_head",
    "text_draw",
    "image_embed",
    "image_head",
    "image_draw",
    "image_encoder",
    "image_decoder",
    "image_preview",
    "time_embed",
    "flow_step",
]
Size = int | str

# What a graph may come in, beside the form that every backend takes. Of a decoder they differ in how the cache is written; `cpu` is for
# products as CPUs are fast at, with the inputs and outputs of the other form.
FLAVOURS: dict[GraphKind, tuple[Flavour, ...]] = {
    "language_model": ("gqa", "gqa_cuda", "slice", "inplace"),
    "vision_encoder": ("cpu",),
    "flow_step": ("cpu",),
}

# Rules a place out in a mask, and leaves room for a score in fp16, whose largest is 65504.
MASKED = -30000.0


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. A string in `shape` is a size that varies between calls."""

    dtype: DType
    shape: tuple[Size, ...]


TensorSpecs = dict[str, TensorSpec]


@dataclass(frozen=True)
class NumberFormat:
    """How a graph stores its matrices, and what it computes in: the dtype of its embeddings and hidden states."""

    weights: Weights
    activations: DType


@dataclass(frozen=True)
class KvCache:
    """The keys and values of a graph: which inputs and which outputs, both in the order key 0, value 0, key 1, …

    `in_place`: an output is the whole cache, and shares its memory with the input; otherwise it is that of the new tokens alone, and the
    caller writes it into the cache. `ragged_append`: several rows whose caches are filled may take several new tokens in one call.
    """

    dtype: DType
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    in_place: bool
    ragged_append: bool


@dataclass(frozen=True)
class Sizes:
    """What shapes are made of: `Manifest.sizes`. Names in place of numbers give the tables of docs/bundle.md."""

    num_layers: int
    hidden_size: Size
    num_heads: Size
    head_size: Size
    vocab_size: Size
    input_size: Size
    input_tokens: Size
    output_size: Size
    output_tokens: Size
    num_ids: Size | None
    """None for JanusFlow, which draws latents."""
    latent_channels: Size | None = None
    latent_size: Size | None = None
    condition_size: Size | None = None


@dataclass(frozen=True)
class Interface:
    inputs: TensorSpecs
    outputs: TensorSpecs
    cache: KvCache | None = None


def interface(kind: GraphKind, flavour: Flavour | None, sizes: Sizes, f: DType, cache: DType | None) -> Interface:
    """What a graph takes and gives, in order. `f` is the dtype of its activations, `cache` that of keys and values, if it has any."""
    if kind == "language_model":
        assert flavour is not None and cache is not None
        return _language_model(flavour, sizes, f, cache)
    if kind == "flow_step":
        assert cache is not None
        return _flow_step(sizes, f, cache)
    inputs, outputs = _PLAIN[kind](sizes, f)
    return Interface(inputs, outputs)


def graph_name(kind: GraphKind, flavour: Flavour | None = None) -> str:
    """The key of a graph in the manifest."""
    return f"{kind}.{flavour}" if flavour else kind


def own_inputs(flavour: Flavour, f: DType) -> TensorSpecs:
    """What a flavour of `language_model` takes beside embeddings and cache. `f` is the dtype inside of it."""
    if flavour in ("gqa", "gqa_cuda"):
        return {"seqlens_k": TensorSpec("int32", ("rows",)), "total_sequence_length": TensorSpec("int32", ())}
    if flavour == "slice":
        return {
            "position_ids": TensorSpec("int32", ("rows", "tokens")),
            "past_mask": TensorSpec(f, ("rows", 1, 1, "max_length")),
            "new_mask": TensorSpec(f, (1, 1, "tokens", "tokens")),
        }
    return {
        "position_ids": TensorSpec("int64", ("rows", "tokens")),
        "write_indices": TensorSpec("int64", ("rows",)),
        "attn_mask": TensorSpec("bool", ("rows", 1, "tokens", "max_length")),
    }


def inner_dtype(flavour: Flavour, f: DType) -> DType:
    """The dtype inside of a flavour, of its masks and, unless it is int8, of its cache. ONNX Runtime's operator on CUDA knows no fp32."""
    return "float16" if flavour == "gqa_cuda" else f


def _language_model(flavour: Flavour, sizes: Sizes, f: DType, cache: DType) -> Interface:
    in_place = flavour != "slice"
    held = ("rows", sizes.num_heads, "max_length", sizes.head_size)
    given = held if in_place else ("rows", sizes.num_heads, "tokens", sizes.head_size)
    past = _per_layer("past", sizes, TensorSpec(cache, held))
    present = _per_layer("present" if in_place else "new", sizes, TensorSpec(cache, given))
    return Interface(
        {
            "embeds": TensorSpec(f, ("rows", "tokens", sizes.hidden_size)),
            "places": TensorSpec("int32", ("outputs",)),
            **own_inputs(flavour, inner_dtype(flavour, f)),
            **past,
        },
        {"hidden": TensorSpec(f, ("outputs", sizes.hidden_size)), **present},
        KvCache(cache, tuple(past), tuple(present), in_place, ragged_append=flavour in ("slice", "inplace")),
    )


def _flow_step(sizes: Sizes, f: DType, cache: DType) -> Interface:
    past = _per_layer("past", sizes, TensorSpec(cache, ("images", 2, sizes.num_heads, "max_length", sizes.head_size)))
    new = _per_layer("new", sizes, TensorSpec(cache, ("images", 2, sizes.num_heads, "tokens", sizes.head_size)))
    each = TensorSpec("float32", ("images",))
    return Interface(
        {
            "latents": _latents(sizes),
            "prefix_embeds": TensorSpec(f, ("images", 2, "tokens", _known(sizes.hidden_size))),
            "prefix_mask": TensorSpec(f, ("images", 2, "tokens")),
            "past_mask": TensorSpec(f, ("images", 2, "max_length")),
            "first_position": TensorSpec("int32", ("images",)),
            **_time_outputs(sizes, "images"),
            "cfg_weight": each,
            "dt": each,
            **past,
        },
        {"next_latents": _latents(sizes), "velocity": _latents(sizes), **new},
        KvCache(cache, tuple(past), tuple(new), in_place=False, ragged_append=False),
    )


def _per_layer(prefix: str, sizes: Sizes, spec: TensorSpec) -> TensorSpecs:
    return {f"{prefix}_{part}_{layer}": spec for layer in range(sizes.num_layers) for part in ("key", "value")}


def _latents(sizes: Sizes) -> TensorSpec:
    return TensorSpec("float32", ("images", _known(sizes.latent_channels), _known(sizes.latent_size), _known(sizes.latent_size)))


def _time_outputs(sizes: Sizes, count: str) -> TensorSpecs:
    return {
        "time_embeds": TensorSpec("float32", (count, sizes.hidden_size)),
        "conditions": TensorSpec("float32", (count, _known(sizes.condition_size))),
    }


def _known(size: Size | None) -> Size:
    assert size is not None, "a size of JanusFlow alone, or of the others alone"
    return size


def _ids(name: str) -> TensorSpecs:
    return {name: TensorSpec("int32", ("rows", "tokens"))}


def _embeds(sizes: Sizes, f: DType) -> TensorSpecs:
    return {"embeds": TensorSpec(f, ("rows", "tokens", sizes.hidden_size))}


def _hidden(sizes: Sizes, f: DType) -> TensorSpecs:
    return {"hidden": TensorSpec(f, ("rows", sizes.hidden_size))}


def _logits(vocabulary: Size | None) -> TensorSpecs:
    return {"logits": TensorSpec("float32", ("rows", _known(vocabulary)))}


def _pixels(size: Size) -> TensorSpecs:
    return {"pixels": TensorSpec("float32", ("images", 3, size, size))}


def _image_ids(sizes: Sizes) -> TensorSpecs:
    return {"image_ids": TensorSpec("int32", ("images", sizes.output_tokens))}


def _text_draw(sizes: Sizes, f: DType) -> tuple[TensorSpecs, TensorSpecs]:
    logits = TensorSpec("float32", ("rows", sizes.vocab_size))
    return (
        {"logits": logits, "noise": logits, "temperature": TensorSpec("float32", ("rows",))},
        {"text_ids": TensorSpec("int32", ("rows",)), "embeds": TensorSpec(f, ("rows", 1, sizes.hidden_size))},
    )


def _image_draw(sizes: Sizes, f: DType) -> tuple[TensorSpecs, TensorSpecs]:
    ids, each = _known(sizes.num_ids), TensorSpec("float32", ("images",))
    return (
        {
            "logits": TensorSpec("float32", ("images", 2, ids)),
            "noise": TensorSpec("float32", ("images", ids)),
            "cfg_weight": each,
            "temperature": each,
        },
        {"image_ids": TensorSpec("int32", ("images",)), "embeds": TensorSpec(f, ("images", 2, sizes.hidden_size))},
    )


_PLAIN: dict[GraphKind, Callable[[Sizes, DType], tuple[TensorSpecs, TensorSpecs]]] = {
    "text_embed": lambda sizes, f: (_ids("text_ids"), _embeds(sizes, f)),
    "vision_encoder": lambda sizes, f: (
        _pixels(sizes.input_size),
        {"embeds": TensorSpec(f, ("images", sizes.input_tokens, sizes.hidden_size))},
    ),
    "text_head": lambda sizes, f: (_hidden(sizes, f), _logits(sizes.vocab_size)),
    "text_draw": _text_draw,
    "image_embed": lambda sizes, f: (_ids("image_ids"), _embeds(sizes, f)),
    "image_head": lambda sizes, f: (_hidden(sizes, f), _logits(sizes.num_ids)),
    "image_draw": _image_draw,
    "image_encoder": lambda sizes, f: (_pixels(sizes.output_size), _image_ids(sizes)),
    "image_decoder": lambda sizes, f: (
        {"latents": _latents(sizes)} if sizes.num_ids is None else _image_ids(sizes),
        _pixels(sizes.output_size),
    ),
    "image_preview": lambda sizes, f: (_image_ids(sizes), _pixels(sizes.output_size)),
    "time_embed": lambda sizes, f: ({"times": TensorSpec("float32", ("steps",))}, _time_outputs(sizes, "steps")),
}
