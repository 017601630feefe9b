"""Which nodes of a graph take integer weights, and what stands in their place."""

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from ..precision import Blocks, Format
from ..recipes import FromCheckpoint
from .blocks import Quantised
from .by_column import multiply_by_column, norm_before, smooth_norm
from .initializers import Recipes, add_weight
from .judge import Judgement, ProductJudge

_DOMAIN = "com.microsoft"
_SMALLEST = 16  # block that ONNX Runtime knows


def quantise_graph(model: ir.Model, recipes: Recipes, format: Format, judge: ProductJudge) -> dict[str, float] | None:
    """Every product with a stored matrix becomes MatMulNBits, every lookup in a stored table GatherBlockQuantized.

    Where `format` allows a scale a column, a product takes that instead, if `judge` found its error small enough. `recipes` (name ->
    recipe, dtype) follows. Where not even the smallest blocks fit, a matrix or table stays as it is.
    """
    chosen: list[tuple[str, Judgement]] = []
    for node in list(model.graph):
        if node.op_type == "MatMul" and format.matrices:
            judgement = judge.found.get(_matrix(node, recipes)) if format.by_column else None
            if judgement and (form := _by_column(model, recipes, node, judgement)):
                chosen.append((form, judgement))
            elif blocks := _fitting(node.inputs[1], recipes, format.matrices, transposed=True):
                _replace_by_blocks(model, recipes, node, "MatMulNBits", blocks)
                if judgement:
                    chosen.append(("block", judgement))
        elif node.op_type == "Gather" and format.tables:
            if blocks := _fitting(node.inputs[0], recipes, format.tables, transposed=False):
                _replace_by_blocks(model, recipes, node, "GatherBlockQuantized", blocks)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses() and not value.is_graph_output()]:
        recipes.pop(name, None)
        del model.graph.initializers[name]
    return _summary(chosen) if chosen else None


def _summary(chosen: list[tuple[str, Judgement]]) -> dict[str, float]:
    """For the manifest: how many matrices have which form, the largest relative error of a product so, and in blocks throughout."""
    forms = [form for form, _ in chosen]
    return {
        "by_column": len(forms) - forms.count("block"),
        "smoothed": forms.count("smoothed"),
        "by_block": forms.count("block"),
        "error": round(max(float(getattr(judgement, form)) for form, judgement in chosen), 5),
        "block_error": round(max(judgement.block for _, judgement in chosen), 5),
    }


def _matrix(node: ir.Node, recipes: Mapping[str, Any]) -> Any:
    """The recipe of the stored matrix that a product takes, if it is one."""
    weight = node.inputs[1]
    return recipes[weight.name][0] if weight is not None and weight.name is not None and weight.name in recipes else None


def _by_column(model: ir.Model, recipes: Recipes, node: ir.Node, judgement: Judgement) -> str | None:
    """Replaces the product by one with a scale a column, and says which; None where the error would be too large."""
    norm = norm_before(node, recipes)
    takes, smoothing = judgement.choose(can_smooth=norm is not None)
    if not takes:
        return None
    if smoothing:
        assert norm is not None
        smooth_norm(model, recipes, *norm, smoothing)
    nodes = multiply_by_column(model, recipes, node, _matrix(node, recipes), smoothing)
    _replace(model, node, nodes)
    return "smoothed" if smoothing else "column"


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


def _replace_by_blocks(model: ir.Model, recipes: Recipes, node: ir.Node, kind: str, blocks: Blocks) -> None:
    weight, other = (node.inputs[1], node.inputs[0]) if kind == "MatMulNBits" else (node.inputs[0], node.inputs[1])
    assert weight is not None and weight.name is not None and weight.dtype is not None
    matrix, _ = recipes[weight.name]
    codes = add_weight(model, recipes, f"{weight.name}.codes", Quantised(matrix, blocks, "codes"), ir.DataType.UINT8)
    scales = add_weight(model, recipes, f"{weight.name}.scales", Quantised(matrix, blocks, "scales"), weight.dtype)
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
    _replace(model, node, [new])


def _replace(model: ir.Model, node: ir.Node, nodes: list[ir.Node]) -> None:
    """Puts `nodes`, of which the last gives what `node` gave, in its place."""
    model.graph.insert_before(node, nodes)
    ir.convenience.replace_all_uses_with(node.outputs[0], nodes[-1].outputs[0], replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    model.graph.opset_imports[_DOMAIN] = 1
