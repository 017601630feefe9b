"""From opset 18, the oldest that the tracer writes, to 17, the newest that TensorRT 8.6 reads. Only what our graphs use."""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

TRACED, LOWERED = 18, 17
# The file format of opset 17's day.
_IR_VERSION = 8
_REDUCTIONS = {"ReduceMean", "ReduceL2", "ReduceMax"}
# New in 18; each stands at the default that was the only way before.
_ADDED: dict[str, dict[str, int | str]] = {"Resize": {"antialias": 0, "keep_aspect_ratio_policy": "stretch"}, "Split": {"num_outputs": 2}}


def lower(model: ir.Model) -> None:
    """Raises AssertionError where a node says what 17 has no words for."""
    for node in model.graph:
        if node.op_type in _REDUCTIONS:
            _axes_to_attribute(node)
        for name, value in _ADDED.get(node.op_type, {}).items():
            if name in node.attributes:
                got = node.attributes[name].value
                assert got == value, f"{node.op_type} with {name} {got} has no form in opset {LOWERED}"
                node.attributes.pop(name)
        if node.op_type == "Reshape":
            # What a size of 0 means; we have none, and not every reader of 17 knows the word.
            node.attributes.pop("allowzero", None)
    RemoveUnusedNodesPass()(model)
    model.graph.opset_imports[""] = LOWERED
    model.ir_version = _IR_VERSION


def _axes_to_attribute(node: ir.Node) -> None:
    source = node.inputs[1] if len(node.inputs) > 1 else None
    axes = ir.convenience.get_const_tensor(source) if source is not None else None
    assert axes is not None, f"{node.op_type} over axes that are computed has no form in opset {LOWERED}"
    node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)
    node.attributes.add(ir.AttrInt64s("axes", [int(axis) for axis in axes.numpy().reshape(-1)]))
