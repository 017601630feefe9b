"""A word in place of what it stands for, and opset 18 in the words of 17: the numbers stay."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from janus_export.onnx.inline import DOMAIN, inline
from janus_export.onnx.opsets import lower


def model_of(nodes, inputs, outputs, initializers=(), opset=18, domains=(), ranks=None):
    ranks = ranks or {}
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ranks.get(name, ["n"]))  # noqa: E731
    constants = [numpy_helper.from_array(np.array(array), name) for name, array in initializers]
    graph = helper.make_graph(nodes, "g", [value(name) for name in inputs], [value(name) for name in outputs], constants)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def run(model, **inputs):
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return ort.InferenceSession(proto.SerializeToString()).run(None, inputs)


def test_a_word_becomes_what_it_stands_for():
    """Two words, one on the other's result; one of their outputs is the graph's, one goes on, one nobody needs."""
    body = model_of(
        [helper.make_node("Mul", ["a", "two"], ["doubled"]), helper.make_node("Sub", ["doubled", "b"], ["less"])],
        ["a", "b"],
        ["less", "doubled"],
        [("two", np.float32(2))],
    )
    words = [helper.make_node("w", ["x", "y"], ["p", "q"], domain=DOMAIN), helper.make_node("w", ["p", "y"], ["r", "s"], domain=DOMAIN)]
    model = model_of([*words, helper.make_node("Neg", ["r"], ["t"])], ["x", "y"], ["q", "t"], domains=[DOMAIN])
    inline(model, "w", body)
    assert DOMAIN not in model.graph.opset_imports and {node.op_type for node in model.graph} == {"Mul", "Sub", "Neg"}
    assert len(model.graph.initializers) == 1, "a constant is stored once"
    x, y = np.float32([1, 2]), np.float32([5, 7])
    doubled, result = run(model, x=x, y=y)
    assert (doubled == 2 * x).all() and (result == -(2 * (2 * x - y) - y)).all()


def test_the_newer_opset_wins():
    body = model_of([helper.make_node("Neg", ["a"], ["b"])], ["a"], ["b"], opset=21)
    model = model_of([helper.make_node("w", ["x"], ["y"], domain=DOMAIN)], ["x"], ["y"], opset=18, domains=[DOMAIN])
    inline(model, "w", body)
    assert model.graph.opset_imports[""] == 21


def test_lowered_graphs_give_the_same():
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Split", ["x"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Add", ["left", "mean"], ["y"]),
        helper.make_node("Reshape", ["right", "shape"], ["z"], allowzero=1),
    ]
    constants = [("axes", np.int64([-1])), ("shape", np.int64([2, 3]))]
    before, after = (model_of(nodes, ["x"], ["y", "z"], constants, ranks={name: ["a", "b"] for name in "xyz"}) for _ in range(2))
    lower(after)
    assert after.graph.opset_imports[""] == 17 and after.ir_version == 8
    assert not {"num_outputs", "allowzero"} & {name for node in after.graph for name in node.attributes}
    x = np.random.default_rng(0).standard_normal((3, 4), np.float32)
    for expected, got in zip(run(before, x=x), run(after, x=x), strict=True):
        assert (expected == got).all()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=1),
            "Resize with antialias 1 has no form in opset 17",
        ),
        (helper.make_node("ReduceMax", ["x", "axes"], ["y"]), "ReduceMax over axes that are computed"),
    ],
)
def test_what_17_has_no_words_for_is_refused(node, message):
    model = model_of([node], ["x", "axes", "scales"], ["y"])
    with pytest.raises(AssertionError, match=message):
        lower(model)
