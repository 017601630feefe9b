"""GRAPHS: every graph's name, module, inputs, outputs and the task that needs it. A new graph is a new entry here.

Shape letters: `rows`, `tokens`, `max_length` and `images` vary between calls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from janus_runtime.manifest import DType, Precision, Task, TensorSpec

from . import modules
from .config import JanusConfig
from .modules.attention import Attention, GroupQuery, GroupQueryCuda, InPlace, Slice
from .modules.layers import recipes_of
from .recipes import Recipe

TensorSpecs = dict[str, TensorSpec]


@dataclass(frozen=True)
class GraphSpec:
    """`arrange` groups the inputs, flat by name, into the module's arguments; it is used for tensors and for shapes."""

    name: str
    build: Callable[[JanusConfig, torch.dtype], nn.Module]
    inputs: Callable[[JanusConfig, DType], TensorSpecs]
    outputs: Callable[[JanusConfig, DType], TensorSpecs]
    tasks: tuple[Task, ...]
    precisions: tuple[Precision, ...] = get_args(Precision)
    opset: int = 17  # the newest that TensorRT 8.6 reads
    arrange: Callable[[dict[str, Any]], tuple[Any, ...]] = lambda named: tuple(named.values())


def _ids(name: str) -> Callable[[JanusConfig, DType], TensorSpecs]:
    return lambda config, f: {name: TensorSpec("int32", ("rows", "tokens"))}


def _embeds(config: JanusConfig, f: DType) -> TensorSpecs:
    return {"embeds": TensorSpec(f, ("rows", "tokens", config.text.hidden_size))}


def _hidden(config: JanusConfig, f: DType) -> TensorSpecs:
    return {"hidden": TensorSpec(f, ("rows", config.text.hidden_size))}


def _pixels(size: Callable[[JanusConfig], int]) -> Callable[[JanusConfig, DType], TensorSpecs]:
    return lambda config, f: {"pixels": TensorSpec("float32", ("images", 3, size(config), size(config)))}


def _image_ids(config: JanusConfig, f: DType) -> TensorSpecs:
    return {"image_ids": TensorSpec("int32", ("images", config.vq.grid**2))}


def _cache(config: JanusConfig, f: DType, prefix: str) -> TensorSpecs:
    """`past` and `present` are a cache, `new` what a call adds to one."""
    text = config.text
    spec = TensorSpec(f, ("rows", text.num_heads, "tokens" if prefix == "new" else "max_length", text.head_size))
    return {f"{prefix}_{part}_{layer}": spec for layer in range(text.num_layers) for part in ("key", "value")}


def _scalar(name: str) -> TensorSpecs:
    return {name: TensorSpec("float32", (1,))}


def _image_draw(config: JanusConfig, f: DType) -> TensorSpecs:
    ids = config.vq.num_ids
    tensors = {"logits": TensorSpec("float32", ("images", 2, ids)), "noise": TensorSpec("float32", ("images", ids))}
    return {**tensors, **_scalar("cfg_weight"), **_scalar("temperature")}


def _text_draw(config: JanusConfig, f: DType) -> TensorSpecs:
    logits = TensorSpec("float32", ("rows", config.text.vocab_size))
    return {"logits": logits, "noise": logits, **_scalar("temperature")}


def _language_model(attention: type[Attention], precisions: tuple[Precision, ...] = get_args(Precision)) -> GraphSpec:
    own_dtype = attention.dtype

    def inputs(config: JanusConfig, f: DType) -> TensorSpecs:
        last_row, inner = {"last_row": TensorSpec("int32", ("rows",))}, own_dtype or f
        return {**_embeds(config, f), **last_row, **attention.inputs(inner), **_cache(config, inner, "past")}

    def build(config: JanusConfig, f: torch.dtype) -> nn.Module:
        inner = getattr(torch, own_dtype) if own_dtype else f
        return modules.LanguageModel(config, inner, attention(config.text, inner))

    def arrange(named: dict[str, Any]) -> tuple[Any, ...]:
        own = [named[name] for name in attention.inputs("float32")]
        cache = [value for name, value in named.items() if name.startswith(("past_key_", "past_value_"))]
        return named["embeds"], named["last_row"], own, cache

    return GraphSpec(
        f"language_model.{attention.flavour}",
        build,
        inputs,
        lambda config, f: {**_hidden(config, f), **_cache(config, own_dtype or f, attention.gives)},
        ("generation", "understanding"),
        precisions,
        attention.opset,
        arrange,
    )


GRAPHS = (
    GraphSpec("text_embed", modules.TextEmbed, _ids("text_ids"), _embeds, ("generation", "understanding")),
    GraphSpec(
        "vision_encoder",
        modules.VisionEncoder,
        _pixels(lambda config: config.vision.image_size),
        lambda config, f: {"embeds": TensorSpec(f, ("images", config.vision.num_tokens, config.text.hidden_size))},
        ("understanding",),
    ),
    GraphSpec("image_embed", modules.ImageEmbed, _ids("image_ids"), _embeds, ("generation",)),
    _language_model(GroupQuery),
    _language_model(GroupQueryCuda, ("int8", "int4")),
    # TensorRT has no form for integer weights as ONNX Runtime packs them.
    _language_model(Slice, ("fp32", "fp16")),
    _language_model(InPlace, ("fp32", "fp16")),
    GraphSpec(
        "text_head",
        modules.TextHead,
        _hidden,
        lambda config, f: {"logits": TensorSpec("float32", ("rows", config.text.vocab_size))},
        ("understanding",),
    ),
    GraphSpec(
        "image_head",
        modules.ImageHead,
        _hidden,
        lambda config, f: {"logits": TensorSpec("float32", ("rows", config.vq.num_ids))},
        ("generation",),
    ),
    GraphSpec(
        "text_draw",
        modules.TextDraw,
        _text_draw,
        lambda config, f: {"text_ids": TensorSpec("int32", ("rows",)), "embeds": TensorSpec(f, ("rows", 1, config.text.hidden_size))},
        ("understanding",),
    ),
    GraphSpec(
        "image_draw",
        modules.ImageDraw,
        _image_draw,
        lambda config, f: {"image_ids": TensorSpec("int32", ("images",)), "embeds": TensorSpec(f, ("images", 2, config.text.hidden_size))},
        ("generation",),
    ),
    GraphSpec("image_encoder", modules.ImageEncoder, _pixels(lambda config: config.vq.image_size), _image_ids, ("generation",)),
    GraphSpec("image_decoder", modules.ImageDecoder, _image_ids, _pixels(lambda config: config.vq.image_size), ("generation",)),
)


def graphs_for(tasks: tuple[Task, ...], precision: Precision) -> list[GraphSpec]:
    return [spec for spec in GRAPHS if set(spec.tasks) & set(tasks) and precision in spec.precisions]


def recipes_of_all(config: JanusConfig) -> list[Recipe]:
    """What every graph needs, whatever part is exported: a checkpoint is checked whole."""
    with torch.device("meta"):
        return [recipe for spec in GRAPHS for recipe, _ in recipes_of(spec.build(config, torch.float32)).values()]
