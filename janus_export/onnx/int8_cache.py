"""An int8 KV cache: how large keys and values become, found by watching the reference run, and the graph that stores them so.

Letters: R rows, T tokens, H heads, d head size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ..checkpoint.sizes import TextConfig
from ..checkpoint.tensor import Tensor
from ..errors import CheckpointError
from .initializers import Recipes, add_weight

# Beyond the largest magnitude that was seen; what lies outside is clipped. A few hundred tokens of a bell curve show about
# 3 sigma, so twice that is hardly ever left, and a step is 5 % of sigma: an error of 1.4 %, little beside 4-bit weights.
HEADROOM = 2.0
_SMALLEST = 1e-6  # a channel that is always zero still needs a scale to divide by


class CacheScales:
    """One scale for each channel of each layer's keys and values. `watch` fills it, a `CacheScale` reads it."""

    def __init__(self, text: TextConfig) -> None:
        self.text = text
        self._largest: dict[str, torch.Tensor] = {}

    def watch(self, layer: int, qkv: torch.Tensor) -> None:
        """Merged qkv [R, T, 3 · H · d] of one layer, before RoPE. Raises CheckpointError where it is no number.

        RoPE turns the pair (i, i + d/2) of a key by an angle of its position: neither ever exceeds the pair's length,
        whatever the position, so what a few hundred positions show holds for all.
        """
        _, key, value = qkv.unflatten(-1, (3, self.text.num_heads, self.text.head_size)).unbind(-3)
        length = torch.hypot(*key.chunk(2, dim=-1))
        for name, magnitude in ((f"key_{layer}", torch.cat([length, length], dim=-1)), (f"value_{layer}", value.abs())):
            if not torch.isfinite(magnitude).all():
                raise CheckpointError(
                    f"{name.replace('_', 's of layer ')} of the reference holds NaN or Inf: the checkpoint is damaged; fetch it again"
                )
            self._largest[name] = magnitude.amax((0, 1))

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """`key_<layer>` or `value_<layer>` -> [1, H, 1, d]; what is stored = round(number / scale), -128 to 127."""
        largest = self._largest[name].float().numpy() * np.float32(HEADROOM)
        limit: NDArray[np.float32] = np.maximum(largest, np.float32(_SMALLEST))
        return (limit / np.float32(127))[None, :, None]


@dataclass(frozen=True)
class CacheScale:
    """The recipe of a stored scale. It can be made once the reference has run."""

    scales: CacheScales
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return 1, self.scales.text.num_heads, 1, self.scales.text.head_size

    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> NDArray[Any]:
        return self.scales[self.name].astype(dtype)


def quantise_cache(model: ir.Model, recipes: Recipes, scales: CacheScales) -> None:
    """Every GroupQueryAttention of `model` reads and writes an int8 cache. `recipes` (name -> recipe, dtype) follows."""
    int8 = ir.TensorType(ir.DataType.INT8)
    for node in model.graph:
        if node.op_type != "GroupQueryAttention":
            continue
        cached = [value for value in (*node.inputs[3:5], *node.outputs[1:3]) if value is not None and value.name is not None]
        for value in cached:
            value.type = int8
        node.resize_inputs(14)  # key and value scales are the 13th and 14th
        for index, value in ((12, cached[0]), (13, cached[1])):
            recipe = CacheScale(scales, str(value.name).removeprefix("past_"))
            node.replace_input_with(index, add_weight(model, recipes, f"{recipe.name}.scale", recipe, ir.DataType.FLOAT))
        node.attributes.add(ir.AttrInt64("kv_cache_bit_width", 8))
        for name in ("k_quant_type", "v_quant_type"):
            node.attributes.add(ir.AttrString(name, "PER_CHANNEL"))
