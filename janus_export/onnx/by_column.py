"""8-bit weights with one scale a column, for CPUs: products of whole rows of 8 bits, twice as fast as those of blocks.

Each row of activations (a token) gets a scale of its own at run time, so that a token's numbers do not depend on its company.
Letters: K inputs and N outputs of a matrix.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..checkpoint.tensor import Tensor
from ..recipes import FromCheckpoint, finite_rows_of
from .initializers import Recipes, add_constant, add_weight
from .judge import Smoothing

_DOMAIN = "com.microsoft"
_ZERO = 128  # of activations
_NORMS = {"Mul": (1,), "LayerNormalization": (1, 2), "SkipSimplifiedLayerNormalization": (2,)}  # where their vectors are among the inputs


@dataclass(frozen=True)
class ByColumn:
    """One of the two stored tensors of a matrix: codes [K, N] and scales [N], each over 127² steps of both factors.

    weight = code * scale * 127. Codes are signed: with unsigned ones ONNX Runtime has no kernels for VNNI and AMX.
    """

    matrix: FromCheckpoint
    smoothing: Smoothing | None
    part: Literal["codes", "scales"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.shape if self.part == "codes" else self.matrix.shape[1:]

    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Reads and quantises a few rows at a time. Raises CheckpointError if a value is not finite."""
        result = np.empty(self.shape, dtype)
        done = 0
        for rows in finite_rows_of(tensors, self.matrix.sources):
            if self.smoothing:
                rows = rows * self.smoothing.factors
            largest = np.abs(rows).max(1)
            end = done + len(rows)
            if self.part == "scales":
                result[done:end] = largest / np.float32(127 * 127)
            else:
                steps = np.maximum(largest, np.float32(1e-30)) / np.float32(127)
                result[:, done:end] = np.rint(rows / steps[:, None]).T
            done = end
        return result


@dataclass(frozen=True)
class SmoothedNorm:
    """The weight or bias of a norm, divided by what the matrix behind it was multiplied by."""

    vector: FromCheckpoint
    smoothing: Smoothing

    @property
    def shape(self) -> tuple[int, ...]:
        return self.vector.shape

    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> NDArray[Any]:
        return self.vector.make(tensors, dtype) / self.smoothing.factors.astype(dtype)


def norm_before(node: ir.Node, recipes: Mapping[str, tuple[Any, Any]]) -> tuple[ir.Node, tuple[int, ...]] | None:
    """The norm that gives a product its activations and gives them to nobody else, and where its stored vectors are among its inputs."""
    value = node.inputs[0]
    norm = value.producer() if value is not None else None
    if norm is None or norm.op_type not in _NORMS or len(list(value.uses())) != 1 or value is not norm.outputs[0]:  # type: ignore[union-attr]
        return None
    places = tuple(place for place in _NORMS[norm.op_type] if place < len(norm.inputs) and norm.inputs[place] is not None)
    vectors = [norm.inputs[place] for place in places]
    stored = [recipes[str(each.name)][0] if each is not None and each.name in recipes else None for each in vectors]
    if not all(isinstance(recipe, FromCheckpoint) and len(recipe.shape) == 1 for recipe in stored):
        return None
    return norm, places


def smooth_norm(model: ir.Model, recipes: Recipes, norm: ir.Node, places: tuple[int, ...], smoothing: Smoothing) -> None:
    """The vectors of `norm`, divided."""
    for place in places:
        old = norm.inputs[place]
        assert old is not None and old.name is not None and old.dtype is not None
        vector, _ = recipes[old.name]
        new = add_weight(model, recipes, f"{old.name}.smoothed", SmoothedNorm(vector, smoothing), old.dtype)
        norm.replace_input_with(place, new)


def multiply_by_column(
    model: ir.Model, recipes: Recipes, node: ir.Node, matrix: FromCheckpoint, smoothing: Smoothing | None
) -> list[ir.Node]:
    """The nodes that stand for a product with a stored matrix: each row to 8 bits by its largest magnitude, then MatMulIntegerToFloat."""
    x, weight = node.inputs
    assert x is not None and weight is not None and weight.name is not None
    codes = add_weight(model, recipes, f"{weight.name}.column_codes", ByColumn(matrix, smoothing, "codes"), ir.DataType.INT8)
    scales = add_weight(model, recipes, f"{weight.name}.column_scales", ByColumn(matrix, smoothing, "scales"), ir.DataType.FLOAT)
    axes = add_constant(model, "last_axis", np.array([-1], np.int64))
    tiny, most, one = (
        add_constant(model, name, np.array(value, np.float32)) for name, value in (("tiny", 1e-30), ("most", 127), ("one", 1))
    )
    zero = add_constant(model, "zero_code", np.array(_ZERO, np.uint8))
    nodes: list[ir.Node] = []

    def add(kind: str, inputs: list[ir.Value | None], domain: str = "", **attributes: int) -> ir.Value:
        new = ir.Node(
            domain, kind, inputs, [ir.AttrInt64(name, value) for name, value in attributes.items()], name=f"{node.name}.{len(nodes)}"
        )
        new.outputs[0].name = f"{node.outputs[0].name}.{len(nodes)}"
        nodes.append(new)
        return new.outputs[0]

    # A row of zeros is divided by something too.
    largest = add("Max", [add("ReduceMax", [add("Abs", [x]), axes], keepdims=1), tiny])
    whole = add("QuantizeLinear", [add("Mul", [x, add("Div", [most, largest])]), one, zero])
    # Without a zero of the weights: one that products share could not be made unsigned with them (docs/bundle.md).
    y = add("MatMulIntegerToFloat", [whole, codes, largest, scales, zero], _DOMAIN)
    y.name, y.type, y.shape = node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape
    return nodes
