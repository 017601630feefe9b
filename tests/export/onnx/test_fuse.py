"""What is left to ONNX Runtime as one operator: residual norms, GELU."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from janus_export.onnx.fuse import fuse_residual_norms


def norm(normalised="x", exponent=2, axis=-1, weight="weight"):
    """weight · x / sqrt(mean(normalised²) + 1e-6) of x = a + b, and x itself."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 8]) for name in ("a", "b", "x", "y")]
    constants = {
        "exponent": np.float32(exponent),
        "axes": np.array([axis]),
        "eps": np.float32(1e-6),
        "weight": np.linspace(1, 2, 8, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Add", ["a", "b"], ["x"]),
        helper.make_node("Pow", [normalised, "exponent"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "eps"], ["shifted"]),
        helper.make_node("Sqrt", ["shifted"], ["root"]),
        helper.make_node("Div", ["x", "root"], ["divided"]),
        helper.make_node("Mul", ["divided", weight], ["y"]),
    ]
    initializers = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "norm", values[:2], values[2:], initializers)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def run(model, a, b):
    return ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(["x", "y"], {"a": a, "b": b})


def test_the_sum_and_its_norm_come_out_of_one_operator():
    a, b = np.random.default_rng(0).normal(size=(2, 2, 8)).astype(np.float32)
    before = run(norm(), a, b)
    model = norm()
    fuse_residual_norms(model)
    assert [node.op_type for node in model.graph] == ["SkipSimplifiedLayerNormalization"]
    for got, expected in zip(run(model, a, b), before, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("other", [{"normalised": "a"}, {"exponent": 4}, {"axis": 0}, {"weight": "b"}], ids=str)
def test_another_formula_is_left_alone(other):
    model = norm(**other)
    fuse_residual_norms(model)
    assert "SkipSimplifiedLayerNormalization" not in {node.op_type for node in model.graph}


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_decoder_has_one_for_every_sum(bundles, precision):
    model = onnx.load(bundles("tiny", precision) / "language_model.gqa.onnx", load_external_data=False)
    layers = sum(value.name.startswith("past_key_") for value in model.graph.input)
    kinds = Counter(node.op_type for node in model.graph.node)
    # The first norm has no sum before it; between the last sum and the last norm rows are picked.
    assert kinds["SkipSimplifiedLayerNormalization"] == 2 * layers - 1 and kinds["Sqrt"] == 2


@pytest.mark.parametrize("precision, graph", [("fp32", "vision_encoder"), ("int8", "vision_encoder.cpu"), ("fp32", "image_head")])
def test_onnx_runtime_takes_gelu_for_one_operator(bundles, tmp_path, precision, graph):
    """It knows one order of the products, and not the one that torch exports."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(str(bundles("tiny", precision) / f"{graph}.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node}
    assert "Erf" not in kinds and kinds & {"Gelu", "BiasGelu"}
