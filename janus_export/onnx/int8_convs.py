"""8-bit convolutions: how their scales are chosen, what is stored, and which nodes of a graph become them.

An input channel c is stored as round(x / scale[c]) + zero, an output channel o as round(y / scale[o]) + zero[o], both uint8. Scales of
channels cost nothing: those of an input go into the weights, those of an output into the factor that ends a sum. Weights are integers of
-64 to 63: two products with a uint8 then fit 16 bits, so that no processor saturates, and all compute the same.
Letters: C input channels, O output channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..checkpoint.tensor import Tensor
from ..recipes import FromCheckpoint, Given, Recipe
from .initializers import Recipes, add_constant, add_weight

Floats = NDArray[np.float32]
Phase = tuple[int, int]

# One more than the largest weight.
WEIGHT_LIMIT = 64
_LEVELS = 255
# How far an input scale goes from the widest channel's to its own, in logarithms: of 0.5, 0.75 and 1 the best (bench/NOTES.md, 20).
_OWN = 0.75
_SMALLEST = 1e-6  # a channel that is always zero still needs a scale to divide by
# Rows and columns of a doubled map, even and odd: which of three taps fall on the same pixel of the map before.
_TAPS = (((0,), (1, 2)), ((0, 1), (2,)))
PHASES: tuple[Phase, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclass(frozen=True)
class ConvScales:
    """Of one convolution: x_scale [C] and the zero that its input channels share, y_scale [O] and y_zero [O]."""

    x_scale: Floats
    x_zero: int
    y_scale: Floats
    y_zero: NDArray[np.uint8]


def input_scales(low: Floats, high: Floats) -> tuple[Floats, int]:
    """Ranges [C] that hold 0 -> scales [C] and a zero, which all channels share: the pixels around a map are stored as one number.

    A scale is between what its channel needs and what the widest one needs: finer scales for narrow channels make the weights of wide ones
    large beside the others, which are then coarse (SmoothQuant, arXiv 2211.10438).
    """
    share = np.median(-low / np.maximum(high - low, _SMALLEST))
    zero = int(np.clip(np.rint(_LEVELS * share), 1, _LEVELS - 1))
    needed = np.maximum(np.maximum(high / (_LEVELS - zero), -low / zero), _SMALLEST)
    return (needed**_OWN * needed.max() ** (1 - _OWN)).astype(np.float32), zero


def output_scales(low: Floats, high: Floats) -> tuple[Floats, NDArray[np.uint8]]:
    """Ranges [O] that hold 0 -> scales [O] and zeros [O]."""
    scales = np.maximum((high - low) / _LEVELS, _SMALLEST).astype(np.float32)
    return scales, np.clip(np.rint(-low / scales), 0, _LEVELS).astype(np.uint8)


def phase_weights(weights: Floats, phase: Phase) -> Floats:
    """3x3 weights of a convolution behind a nearest-neighbour doubling -> [O, C, 2, 2], which give the pixels of `phase` from the map
    before. Exact: taps that see the same pixel are added."""
    rows = np.stack([weights[:, :, taps, :].sum(2) for taps in map(list, _TAPS[phase[0]])], axis=2)
    return np.stack([rows[..., taps].sum(-1) for taps in map(list, _TAPS[phase[1]])], axis=-1)


def quantise_weights(weights: Floats, bias: Floats, scales: ConvScales) -> tuple[NDArray[np.int8], Floats, NDArray[np.int32]]:
    """Weights [O, C, k, k] and bias [O] -> codes [O, C, k, k], factors [O] and integer bias [O]: output = round((codes * input + bias) *
    factor), where the input is what is stored less its zero."""
    scaled = weights * scales.x_scale[:, None, None]
    step = np.maximum(np.abs(scaled).max((1, 2, 3)) / (WEIGHT_LIMIT - 1), np.float32(1e-20))
    codes = np.rint(scaled / step[:, None, None, None]).astype(np.int8)
    factor = (step / scales.y_scale).astype(np.float32)
    whole = np.rint((bias.astype(np.float64) / scales.y_scale + scales.y_zero) / factor)
    return codes, factor, np.clip(whole, -(2**31), 2**31 - 1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Int8Conv:
    """One of the three stored tensors of a convolution; `phase` where it stands behind a doubling."""

    weight: FromCheckpoint
    bias: FromCheckpoint
    scales: ConvScales
    phase: Phase | None
    part: Literal["codes", "factor", "bias"]

    @property
    def shape(self) -> tuple[int, ...]:
        outputs, inputs, *kernel = self.weight.shape
        return (outputs, inputs, *((2, 2) if self.phase else kernel)) if self.part == "codes" else (outputs,)

    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> NDArray[Any]:
        weights, bias = (each.make(tensors, np.dtype(np.float32)) for each in (self.weight, self.bias))
        weights = phase_weights(weights, self.phase) if self.phase else weights
        parts: tuple[NDArray[Any], ...] = quantise_weights(weights, bias, self.scales)
        made = parts[("codes", "factor", "bias").index(self.part)]
        return np.ascontiguousarray(made.astype(dtype))


def quantise_convs(model: ir.Model, recipes: Recipes, scales: Mapping[str, ConvScales]) -> None:
    """The convolutions `scales` names, by the module that each was, become QLinearConv between QuantizeLinear and DequantizeLinear; one
    behind a doubling becomes four on the map before it. `recipes` (name -> recipe, dtype) follows."""
    for node in list(model.graph):
        if node.op_type == "Conv" and (name := str(node.inputs[1].name).removesuffix(".weight")) in scales:  # type: ignore[union-attr]
            _Rewrite(model, recipes, name, scales[name]).replace(node)
    RemoveUnusedNodesPass()(model)
    # The pass takes weights that nothing reads too.
    for name in recipes.keys() - model.graph.initializers.keys():
        del recipes[name]


class _Rewrite:
    """Of one convolution."""

    def __init__(self, model: ir.Model, recipes: Recipes, name: str, scales: ConvScales) -> None:
        self.model, self.recipes, self.name, self.scales = model, recipes, name, scales

    def replace(self, conv: ir.Node) -> None:
        x, result = conv.inputs[0], conv.outputs[0]
        assert x is not None and result.shape is not None
        before = x.producer()
        doubled = before is not None and before.op_type == "Resize"
        if doubled and before is not None:
            x = before.inputs[0]
        self.before = conv
        channels, outputs = len(self.scales.x_scale), len(self.scales.y_scale)
        x_scale = self._stored("x_scale", Given(self.scales.x_scale), "float32")
        x_zeros = self._stored("x_zero", Given(np.full(channels, self.scales.x_zero, np.uint8)), "uint8")
        axis = ir.AttrInt64("axis", 1)
        stored = self._node("QuantizeLinear", [x, x_scale, x_zeros], [axis], ir.DataType.UINT8)
        if doubled:
            parts = [self._conv(stored, phase) for phase in PHASES]
            joined = self._node("Concat", parts, [axis], ir.DataType.UINT8)
            y = self._node("DepthToSpace", [joined], [ir.AttrInt64("blocksize", 2)], ir.DataType.UINT8)
        else:
            y = self._conv(stored, None)
        y_scale = self._stored("y_scale", Given(self.scales.y_scale), "float32")
        y_zero = self._stored("y_zero", Given(self.scales.y_zero), "uint8")
        assert len(self.scales.y_zero) == outputs
        new = self._node("DequantizeLinear", [y, y_scale, y_zero], [axis], ir.DataType.FLOAT)
        new.name, new.shape, result.name = result.name, result.shape, None
        ir.convenience.replace_all_uses_with(result, new, replace_graph_outputs=True)
        self.model.graph.remove(conv, safe=True)

    def _conv(self, stored: ir.Value, phase: Phase | None) -> ir.Value:
        name = f"{self.name}.{phase[0]}{phase[1]}" if phase else self.name
        weight, bias = (self.recipes[f"{self.name}.{part}"][0] for part in ("weight", "bias"))
        assert isinstance(weight, FromCheckpoint) and isinstance(bias, FromCheckpoint)
        recipe = Int8Conv(weight, bias, self.scales, phase, "codes")
        codes = self._stored("codes", recipe, "int8", name)
        factor = self._stored("factor", replace(recipe, part="factor"), "float32", name)
        whole = self._stored("bias", replace(recipe, part="bias"), "int32", name)
        one, zero = self._shared("one", np.float32(1)), self._shared("zero", np.uint8(0))
        x_zero = self._shared(f"zero_{self.scales.x_zero}", np.uint8(self.scales.x_zero))
        # A pixel of an even row or column sees the one before it, of an odd one the one behind it.
        pads = [1 - phase[0], 1 - phase[1], *phase] if phase else [1, 1, 1, 1]
        inputs = [stored, one, x_zero, codes, factor, self._shared("no_zero", np.int8(0)), one, zero, whole]
        return self._node("QLinearConv", inputs, [ir.AttrInt64s("pads", pads)], ir.DataType.UINT8)

    def _node(self, kind: str, inputs: list[Any], attributes: list[ir.Attr], dtype: ir.DataType) -> ir.Value:
        node = ir.Node("", kind, inputs, attributes, num_outputs=1)
        node.outputs[0].type = ir.TensorType(dtype)
        node.outputs[0].name = f"{self.name}.{kind}_{len(self.model.graph)}"
        self.model.graph.insert_before(self.before, node)
        return node.outputs[0]

    def _stored(self, part: str, recipe: Recipe, dtype: str, name: str | None = None) -> ir.Value:
        key = f"{name or self.name}.{part}.int8"
        return add_weight(self.model, self.recipes, key, recipe, ir.DataType.from_numpy(np.dtype(dtype)))

    def _shared(self, name: str, number: np.generic) -> ir.Value:
        """A scalar that convolutions share."""
        return add_constant(self.model, f"int8.{name}", np.array(number))
