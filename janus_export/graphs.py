"""Every graph's name, module, inputs, outputs and the task that needs it. A new graph is a new entry here.

Shape letters: `rows`, `tokens`, `max_length`, `images` and `steps` vary between calls.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import nn

from janus_runtime.bundle.manifest import DType, Precision, Task, TensorSpec

from . import modules
from .checkpoint.sizes import JanusConfig
from .modules.attention import Attention, GroupQuery, GroupQueryCuda, InPlace, Slice
from .modules.layers import recipes_of
from .modules.uvit import block_names
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


def _latents(name: str) -> Callable[[JanusConfig, DType], TensorSpecs]:
    def specs(config: JanusConfig, f: DType) -> TensorSpecs:
        flow = config.flow
        return {name: TensorSpec("float32", ("images", flow.vae.latent_channels, flow.latent_size, flow.latent_size))}

    return specs


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


def _prefix_cache(config: JanusConfig, f: DType, prefix: str) -> TensorSpecs:
    """The same of both rows of every picture."""
    return {name: TensorSpec(f, ("images", 2, *spec.shape[1:])) for name, spec in _cache(config, f, prefix).items()}


def _time_embed(config: JanusConfig, f: DType, steps: str | int) -> TensorSpecs:
    conditions = sum(2 * channels for _, channels in block_names(config.flow))
    return {
        "time_embeds": TensorSpec("float32", (steps, config.text.hidden_size)),
        "conditions": TensorSpec("float32", (steps, conditions)),
    }


def _flow_step(config: JanusConfig, f: DType) -> TensorSpecs:
    return {
        **_latents("latents")(config, f),
        "prefix_embeds": TensorSpec(f, ("images", 2, "tokens", config.text.hidden_size)),
        "prefix_mask": TensorSpec(f, ("images", 2, "tokens")),
        "past_mask": TensorSpec(f, ("images", 2, "max_length")),
        "first_position": TensorSpec("int32", ("images",)),
        **_time_embed(config, f, 1),
        **_scalar("cfg_weight"),
        **_scalar("dt"),
        **_prefix_cache(config, f, "past"),
    }


def _arrange_flow_step(named: dict[str, Any]) -> tuple[Any, ...]:
    latents, embeds, prefix_mask, past_mask, first, time, conditions, cfg_weight, dt, *cache = named.values()
    return latents, (embeds, prefix_mask), past_mask, first, (time, conditions), (cfg_weight, dt), cache


_TEXT = (
    GraphSpec("text_embed", modules.TextEmbed, _ids("text_ids"), _embeds, ("generation", "understanding")),
    GraphSpec(
        "vision_encoder",
        modules.VisionEncoder,
        _pixels(lambda config: config.vision.image_size),
        lambda config, f: {"embeds": TensorSpec(f, ("images", config.image_tokens, config.text.hidden_size))},
        ("understanding",),
    ),
)
_DECODER = (
    _language_model(GroupQuery),
    _language_model(GroupQueryCuda, ("int8", "int4")),
    # TensorRT has no form for integer weights as ONNX Runtime packs them.
    _language_model(Slice, ("fp32", "fp16")),
    _language_model(InPlace, ("fp32", "fp16")),
)
_ANSWERS = (
    GraphSpec(
        "text_head",
        modules.TextHead,
        _hidden,
        lambda config, f: {"logits": TensorSpec("float32", ("rows", config.text.vocab_size))},
        ("understanding",),
    ),
    GraphSpec(
        "text_draw",
        modules.TextDraw,
        _text_draw,
        lambda config, f: {"text_ids": TensorSpec("int32", ("rows",)), "embeds": TensorSpec(f, ("rows", 1, config.text.hidden_size))},
        ("understanding",),
    ),
)
_IDS = (
    GraphSpec("image_embed", modules.ImageEmbed, _ids("image_ids"), _embeds, ("generation",)),
    GraphSpec(
        "image_head",
        modules.ImageHead,
        _hidden,
        lambda config, f: {"logits": TensorSpec("float32", ("rows", config.vq.num_ids))},
        ("generation",),
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

_FLOW = (
    GraphSpec(
        "time_embed",
        modules.TimeEmbed,
        lambda config, f: {"times": TensorSpec("float32", ("steps",))},
        lambda config, f: _time_embed(config, f, "steps"),
        ("generation",),
    ),
    GraphSpec(
        "flow_step",
        modules.FlowStep,
        _flow_step,
        lambda config, f: {
            **_latents("next_latents")(config, f),
            **_latents("velocity")(config, f),
            **_prefix_cache(config, f, "new"),
        },
        ("generation",),
        arrange=_arrange_flow_step,
    ),
    GraphSpec("image_decoder", modules.LatentDecoder, _latents("latents"), _pixels(lambda config: config.flow.image_size), ("generation",)),
)


def graphs_of(config: JanusConfig) -> tuple[GraphSpec, ...]:
    """Every graph of a family member. JanusFlow's decoder lies in `flow_step` too, so only its answers need the one with a cache."""
    if config.flow:
        return (*_TEXT, *(replace(spec, tasks=("understanding",)) for spec in _DECODER), *_ANSWERS, *_FLOW)
    return (*_TEXT, *_DECODER, *_ANSWERS, *_IDS)


def graphs_for(config: JanusConfig, tasks: tuple[Task, ...], precision: Precision) -> list[GraphSpec]:
    return [spec for spec in graphs_of(config) if set(spec.tasks) & set(tasks) and precision in spec.precisions]


def recipes_of_all(config: JanusConfig, vae: bool = True) -> list[Recipe]:
    """What every graph needs, whatever part is exported: a checkpoint is checked whole, but for a VAE that was not opened."""
    specs = [spec for spec in graphs_of(config) if vae or not config.flow or spec.name != "image_decoder"]
    with torch.device("meta"):
        return [recipe for spec in specs for recipe, _ in recipes_of(spec.build(config, torch.float32)).values()]
