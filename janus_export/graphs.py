"""Every graph's name, module and the task that needs it. A new graph is a new entry here; what it takes and gives is in the runtime's
`bundle/interface.py`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import nn

from janus_runtime.bundle.interface import DType, Flavour, GraphKind, Interface, Sizes, graph_name, inner_dtype, interface
from janus_runtime.bundle.manifest import Precision, Task

from . import modules
from .checkpoint.sizes import JanusConfig
from .modules.attention import Attention, GroupQuery, GroupQueryCuda, InPlace, Slice
from .modules.layers import dtype_name, recipes_of
from .onnx.opsets import TRACED
from .precision import format_of
from .recipes import FromCheckpoint, Recipe


@dataclass(frozen=True)
class GraphSpec:
    """`arrange` groups the inputs, flat by name, into the module's arguments; it is used for tensors and for shapes."""

    kind: GraphKind
    build: Callable[[JanusConfig, torch.dtype], nn.Module]
    tasks: tuple[Task, ...]
    flavour: Flavour | None = None
    precisions: tuple[Precision, ...] = get_args(Precision)
    opset: int = 17  # the newest that TensorRT 8.6 reads
    arrange: Callable[[dict[str, Any], Interface], tuple[Any, ...]] = lambda named, interface: tuple(named.values())

    @property
    def name(self) -> str:
        return graph_name(self.kind, self.flavour)

    def interface(self, sizes: Sizes, f: DType) -> Interface:
        """As traced, where activations are in `f`: a cache in int8 comes later."""
        cached = {"language_model": inner_dtype(self.flavour, f) if self.flavour else None, "flow_step": f}
        return interface(self.kind, self.flavour, sizes, f, cached.get(self.kind))


def _language_model(attention: type[Attention], precisions: tuple[Precision, ...] = get_args(Precision)) -> GraphSpec:
    def build(config: JanusConfig, f: torch.dtype) -> nn.Module:
        inner = getattr(torch, inner_dtype(attention.flavour, dtype_name(f)))
        return modules.LanguageModel(config, inner, attention(config.text, inner))

    def arrange(named: dict[str, Any], interface: Interface) -> tuple[Any, ...]:
        assert interface.cache is not None
        cache = [named[name] for name in interface.cache.inputs]
        own = [value for name, value in named.items() if name not in ("embeds", "places", *interface.cache.inputs)]
        return named["embeds"], named["places"], own, cache

    tasks: tuple[Task, ...] = ("generation", "understanding")
    return GraphSpec("language_model", build, tasks, attention.flavour, precisions, attention.opset, arrange)


def _arrange_flow_step(named: dict[str, Any], interface: Interface) -> tuple[Any, ...]:
    latents, embeds, prefix_mask, past_mask, first, time, conditions, cfg_weight, dt, *cache = named.values()
    return latents, (embeds, prefix_mask), past_mask, first, (time, conditions), (cfg_weight, dt), cache


_TEXT = (
    GraphSpec("text_embed", modules.TextEmbed, ("generation", "understanding")),
    GraphSpec("vision_encoder", modules.VisionEncoder, ("understanding",)),
    GraphSpec("vision_encoder", modules.VisionEncoder, ("understanding",), "cpu", ("int8", "int4"), TRACED),
)
_DECODER = (
    _language_model(GroupQuery),
    _language_model(GroupQueryCuda, ("int8", "int4")),
    # TensorRT has no form for integer weights as ONNX Runtime packs them.
    _language_model(Slice, ("fp32", "fp16")),
    _language_model(InPlace, ("fp32", "fp16")),
)
_ANSWERS = (
    GraphSpec("text_head", modules.TextHead, ("understanding",)),
    GraphSpec("text_draw", modules.TextDraw, ("understanding",)),
)
_IDS = (
    GraphSpec("image_embed", modules.ImageEmbed, ("generation",)),
    GraphSpec("image_head", modules.ImageHead, ("generation",)),
    GraphSpec("image_draw", modules.ImageDraw, ("generation",)),
    GraphSpec("image_encoder", modules.ImageEncoder, ("generation",)),
    GraphSpec("image_decoder", modules.ImageDecoder, ("generation",)),
)
_FLOW = (
    GraphSpec("time_embed", modules.TimeEmbed, ("generation",)),
    GraphSpec("flow_step", modules.FlowStep, ("generation",), arrange=_arrange_flow_step),
    GraphSpec("flow_step", modules.FlowStep, ("generation",), "cpu", ("int8",), TRACED, _arrange_flow_step),
    GraphSpec("image_decoder", modules.LatentDecoder, ("generation",)),
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
    specs = [spec for spec in graphs_of(config) if vae or not config.flow or spec.kind != "image_decoder"]
    with torch.device("meta"):
        return [recipe for spec in specs for recipe, _ in recipes_of(spec.build(config, torch.float32)).values()]


def matrices_by_column(spec: GraphSpec, config: JanusConfig, precision: Precision) -> list[FromCheckpoint]:
    """The matrices of a graph that may have one scale a column."""
    if not format_of(spec.kind, precision, spec.flavour).by_column:
        return []
    with torch.device("meta"):
        recipes = [recipe for recipe, _ in recipes_of(spec.build(config, torch.float32)).values()]
    return [recipe for recipe in recipes if isinstance(recipe, FromCheckpoint) and recipe.transposed and len(recipe.shape) == 2]
