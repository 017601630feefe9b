"""Block-wise integer weights: how they are made, a few rows at a time, and which nodes of a graph take them.

Letters: N rows (outputs of a matrix, ids of a table), K columns (its inputs), B = K / block size, rounded up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..checkpoint.tensor import Tensor
from ..precision import Blocks, Format
from ..recipes import FromCheckpoint, refuse_overflow, rows_of

_DOMAIN = "com.microsoft"
_SMALLEST = 16  # block that ONNX Runtime knows


def quantise(rows: NDArray[np.float32], blocks: Blocks) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[N, K] -> codes [N, B, size * bits / 8], low bits first, and scales [N, B]; weight = (code - 2^(bits - 1)) * scale.

    To nearest. There is one more code below zero than above, so a block's value of largest magnitude takes the lowest
    and decides the sign of the scale.
    """
    zero, scales = 2 ** (blocks.bits - 1), scales_of(rows, blocks)
    grouped, wide = _grouped(rows, blocks), scales[..., None]
    steps = np.divide(grouped, wide, out=np.zeros_like(grouped), where=wide != 0)
    codes = np.clip(np.rint(steps) + zero, 0, 2 * zero - 1).astype(np.uint8)
    return (codes[..., 0::2] | codes[..., 1::2] << 4) if blocks.bits == 4 else codes, scales


def scales_of(rows: NDArray[np.float32], blocks: Blocks) -> NDArray[np.float32]:
    """[N, K] -> [N, B], those of `quantise`, without the work of the codes."""
    grouped = _grouped(rows, blocks)
    high, low = grouped.max(-1), grouped.min(-1)
    scales: NDArray[np.float32] = np.where(high > -low, high, low) / np.float32(-(2 ** (blocks.bits - 1)))
    return scales


def _grouped(rows: NDArray[np.float32], blocks: Blocks) -> NDArray[np.float32]:
    """[N, K] -> [N, B, size], the last block filled up with zeros."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % blocks.size))).reshape(len(rows), -1, blocks.size)


@dataclass(frozen=True)
class Quantised:
    """One of the two stored tensors of a quantised matrix. Both are made from the same rows, so neither waits for the other."""

    matrix: FromCheckpoint
    blocks: Blocks
    part: Literal["codes", "scales"]

    @property
    def shape(self) -> tuple[int, ...]:
        count = sum(shape[0] for _, shape in self.matrix.sources)
        groups = -(-self.matrix.sources[0][1][1] // self.blocks.size)
        return (count, groups) if self.part == "scales" else (count, groups, self.blocks.size * self.blocks.bits // 8)

    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Reads and quantises a few rows at a time. Raises CheckpointError if a value is not finite."""
        result = np.empty(self.shape, dtype)
        done = 0
        for name, source in rows_of(tensors, self.matrix.sources):
            rows = source.astype(np.float32)
            if not np.isfinite(rows).all():
                refuse_overflow(name, source, rows.dtype)
            result[done : done + len(rows)] = scales_of(rows, self.blocks) if self.part == "scales" else quantise(rows, self.blocks)[0]
            done += len(rows)
        return result


def quantise_graph(model: ir.Model, recipes: dict[str, tuple[Any, Any]], format: Format) -> None:
    """Every product with a stored matrix becomes MatMulNBits, every lookup in a stored table GatherBlockQuantized.

    `recipes` (name -> recipe, dtype) follows. Where not even the smallest blocks fit, a matrix or table stays as it is.
    """
    for node in list(model.graph):
        if node.op_type == "MatMul" and format.matrices:
            if blocks := _fitting(node.inputs[1], recipes, format.matrices, transposed=True):
                _replace(model, recipes, node, "MatMulNBits", blocks)
        elif node.op_type == "Gather" and format.tables:
            if blocks := _fitting(node.inputs[0], recipes, format.tables, transposed=False):
                _replace(model, recipes, node, "GatherBlockQuantized", blocks)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses() and not value.is_graph_output()]:
        recipes.pop(name, None)
        del model.graph.initializers[name]


def _fitting(value: ir.Value | None, recipes: Mapping[str, Any], blocks: Blocks, transposed: bool) -> Blocks | None:
    """`blocks`, halved until a row holds one (the rows of a table: a whole number of them). None if `value` is no such weight."""
    recipe = recipes[value.name][0] if value is not None and value.name is not None and value.name in recipes else None
    if not isinstance(recipe, FromCheckpoint) or recipe.transposed != transposed or len(recipe.shape) != 2:
        return None
    columns, size = recipe.sources[0][1][1], blocks.size
    while size >= _SMALLEST:
        if (columns >= size) if transposed else (columns % size == 0):
            return Blocks(blocks.bits, size)
        size //= 2
    return None


def _replace(model: ir.Model, recipes: dict[str, tuple[Any, Any]], node: ir.Node, kind: str, blocks: Blocks) -> None:
    weight, other = (node.inputs[1], node.inputs[0]) if kind == "MatMulNBits" else (node.inputs[0], node.inputs[1])
    assert weight is not None and weight.name is not None and weight.dtype is not None
    matrix, _ = recipes[weight.name]
    codes = _initializer(model, recipes, f"{weight.name}.codes", Quantised(matrix, blocks, "codes"), ir.DataType.UINT8)
    scales = _initializer(model, recipes, f"{weight.name}.scales", Quantised(matrix, blocks, "scales"), weight.dtype)
    if kind == "MatMulNBits":
        outputs, columns = matrix.shape[1], matrix.shape[0]
        # Level 4: activations in int8 too, a scale a block. Without it ONNX Runtime unpacks the matrix at every call.
        attributes = {"N": outputs, "K": columns, "bits": blocks.bits, "block_size": blocks.size, "accuracy_level": 4}
        inputs = [other, codes, scales]
    else:
        rows, groups, size = Quantised(matrix, blocks, "codes").shape
        codes.shape = ir.Shape((rows, groups * size))
        attributes = {"bits": blocks.bits, "block_size": blocks.size, "gather_axis": 0, "quantize_axis": 1}
        inputs = [codes, other, scales]
    new = ir.Node(_DOMAIN, kind, inputs, [ir.AttrInt64(name, number) for name, number in attributes.items()], num_outputs=1, name=node.name)
    new.outputs[0].name = node.outputs[0].name
    new.outputs[0].type, new.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    model.graph.insert_before(node, new)
    ir.convenience.replace_all_uses_with(node.outputs[0], new.outputs[0], replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    model.graph.opset_imports[_DOMAIN] = 1


def _initializer(model: ir.Model, recipes: dict[str, tuple[Any, Any]], name: str, recipe: Quantised, dtype: ir.DataType) -> ir.Value:
    if name not in model.graph.initializers:
        value = ir.Value(name=name, shape=ir.Shape(recipe.shape), type=ir.TensorType(dtype))
        model.graph.initializers[name] = value
        recipes[name] = (recipe, dtype.numpy().name)
    return model.graph.initializers[name]
