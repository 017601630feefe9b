"""GRAPHS: every graph's name, module, inputs, outputs and the task that needs it. A new graph is a new entry here.

Shape letters: `rows`, `tokens`, `max_length` and `images` vary between calls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from janus_runtime.manifest import DType, Task, TensorSpec

from . import modules
from .config import JanusConfig
from .modules.attention import Attention, GroupQuery
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
    opset: int = 18  # what the tracer writes natively; another one costs a conversion
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
    text = config.text
    spec = TensorSpec(f, ("rows", text.num_heads, "max_length", text.head_size))
    return {f"{prefix}_{part}_{layer}": spec for layer in range(text.num_layers) for part in ("key", "value")}


def _language_model(attention: type[Attention]) -> GraphSpec:
    def inputs(config: JanusConfig, f: DType) -> TensorSpecs:
        last_row = {"last_row": TensorSpec("int32", ("rows",))}
        return {**_embeds(config, f), **last_row, **attention.inputs, **_cache(config, f, "past")}

    def arrange(named: dict[str, Any]) -> tuple[Any, ...]:
        own = [named[name] for name in attention.inputs]
        cache = [value for name, value in named.items() if name.startswith("past_")]
        return named["embeds"], named["last_row"], own, cache

    return GraphSpec(
        f"language_model.{attention.flavour}",
        lambda config, f: modules.LanguageModel(config, f, attention(config.text, f)),
        inputs,
        lambda config, f: {**_hidden(config, f), **_cache(config, f, "present")},
        ("generation", "understanding"),
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
    GraphSpec("image_encoder", modules.ImageEncoder, _pixels(lambda config: config.vq.image_size), _image_ids, ("generation",)),
    GraphSpec("image_decoder", modules.ImageDecoder, _image_ids, _pixels(lambda config: config.vq.image_size), ("generation",)),
)


def graphs_for(tasks: tuple[Task, ...]) -> list[GraphSpec]:
    return [spec for spec in GRAPHS if set(spec.tasks) & set(tasks)]


def recipes_of_all(config: JanusConfig) -> list[Recipe]:
    """What every graph needs, whatever part is exported: a checkpoint is checked whole."""
    with torch.device("meta"):
        return [recipe for spec in GRAPHS for recipe, _ in recipes_of(spec.build(config, torch.float32)).values()]
