"""ONNX Runtime's own operators where its optimizer does not find them by itself."""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

_DOMAIN = "com.microsoft"


def fuse_residual_norms(model: ir.Model) -> None:
    """Every sum that is normalised by its root mean square: one SkipSimplifiedLayerNormalization, which gives both.

    Two kernels less a layer, each of them short: their start is what they cost. In fp16 casts stand between, and all stays as it is.
    """
    for scaled in list(model.graph):
        if scaled.op_type != "Mul" or (found := _residual_norm(scaled)) is None:
            continue
        total, eps = found
        new = ir.Node(
            _DOMAIN,
            "SkipSimplifiedLayerNormalization",
            [*total.inputs, scaled.inputs[1]],
            [ir.AttrFloat32("epsilon", eps)],
            # The mean and its root are for training and are not asked for.
            outputs=[_like(scaled.outputs[0]), ir.Value(name=""), ir.Value(name=""), _like(total.outputs[0])],
            name=scaled.name,
        )
        model.graph.insert_after(total, new)
        for old, value in ((scaled.outputs[0], new.outputs[0]), (total.outputs[0], new.outputs[3])):
            ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    RemoveUnusedNodesPass()(model)
    model.graph.opset_imports[_DOMAIN] = 1


def _residual_norm(scaled: ir.Node) -> tuple[ir.Node, float] | None:
    """weight · x / sqrt(mean(x², last axis) + eps), as `RMSNorm` traces it -> the sum that x is, and eps."""
    divided = _maker(scaled.inputs[0], "Div")
    root = divided and _maker(divided.inputs[1], "Sqrt")
    shifted = root and _maker(root.inputs[0], "Add")
    mean = shifted and _maker(shifted.inputs[0], "ReduceMean")
    square = mean and _maker(mean.inputs[0], "Pow")
    if not (divided and shifted and mean and square) or square.inputs[0] is not divided.inputs[0]:
        return None
    weight, total, eps = scaled.inputs[1], _maker(divided.inputs[0], "Add"), _constant(shifted.inputs[1])
    vector = weight is not None and weight.is_initializer() and weight.shape is not None and len(weight.shape) == 1
    if not vector or _constant(square.inputs[1]) != 2 or _constant(mean.inputs[1]) != -1:
        return None
    return (total, eps) if total and eps is not None else None


def _constant(value: ir.Value | None) -> float | None:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None


def _maker(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None


def _like(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=value.shape, type=value.type)
