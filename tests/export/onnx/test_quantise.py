"""Integer weights: codes and scales, against ONNX Runtime's own quantiser and kernels, and what a graph makes of them."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper
from onnxruntime.capi import _pybind_state as ort_state

import janus_runtime
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.onnx.blocks import Quantised, quantise
from janus_export.precision import Blocks
from janus_export.recipes import CheckpointError, FromCheckpoint
from janus_runtime.checks.tolerances import tolerance
from janus_runtime.checks.verify import verify_goldens

BLOCKS = [Blocks(4, 32), Blocks(4, 256), Blocks(8, 64), Blocks(8, 128)]
ROWS = arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 150)), elements=st.floats(-100, 100, width=32))


def restored(codes, scales, blocks, columns):
    """[N, K] from what is stored, by the formula of MatMulNBits."""
    if blocks.bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], -1)
    whole = (codes.astype(np.float32) - 2 ** (blocks.bits - 1)) * scales[..., None]
    return whole.reshape(len(codes), -1)[:, :columns]


@pytest.mark.parametrize("blocks", [each for each in BLOCKS if each.bits == 8], ids=str)
@given(rows=ROWS)
def test_no_weight_moves_by_more_than_a_step(blocks, rows):
    """Half a step by rounding; a whole one where a value meets its own opposite, which has no code."""
    codes, scales = quantise(rows, blocks)
    moved = np.abs(restored(codes, scales, blocks, rows.shape[1]) - rows)
    steps = np.repeat(np.abs(scales), blocks.size, axis=1)[:, : rows.shape[1]]
    opposite = rows / np.where(steps == 0, 1, -steps * np.sign(np.repeat(scales, blocks.size, axis=1)[:, : rows.shape[1]]))
    limit = np.where(np.abs(opposite) > 2 ** (blocks.bits - 1) - 1, 1.0, 0.5) * steps
    assert (moved <= limit * 1.001 + 1e-30).all()


@pytest.mark.parametrize("blocks", [each for each in BLOCKS if each.bits == 4], ids=str)
@given(rows=ROWS)
def test_a_fitted_scale_errs_no_more_than_the_largest_magnitude_does(blocks, rows):
    codes, scales = quantise(rows, blocks)
    grouped = np.pad(rows, ((0, 0), (0, -rows.shape[1] % blocks.size))).reshape(len(rows), -1, blocks.size)
    high, low = grouped.max(-1), grouped.min(-1)
    widest = np.where(high > -low, high, low) / -8  # of two as large, the one below zero: the other side may err less
    steps = np.divide(grouped, widest[..., None], out=np.zeros_like(grouped), where=widest[..., None] != 0)
    plain = np.clip(np.rint(steps), -8, 7) * widest[..., None]
    fitted = np.pad(restored(codes, scales, blocks, rows.shape[1]), ((0, 0), (0, -rows.shape[1] % blocks.size))).reshape(grouped.shape)
    errors = [np.square(each - grouped).sum(-1, dtype=np.float64) for each in (fitted, plain)]
    assert (errors[0] <= errors[1] * 1.001 + 1e-6 * np.square(grouped).sum(-1)).all()


def test_fitted_blocks_of_256_lose_as_little_as_plain_ones_of_128():
    rows = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    fitted = restored(*quantise(rows, Blocks(4, 256)), Blocks(4, 256), 1024)
    grouped = rows.reshape(64, -1, 128)
    high, low = grouped.max(-1, keepdims=True), grouped.min(-1, keepdims=True)
    widest = np.where(high > -low, high, low) / -8
    plain = (np.clip(np.rint(grouped / widest), -8, 7) * widest).reshape(rows.shape)
    assert np.square(fitted - rows).sum() < 1.02 * np.square(plain - rows).sum()


@pytest.mark.parametrize("blocks", [each for each in BLOCKS if each.bits == 8], ids=str)
def test_onnx_runtime_quantises_alike(blocks):
    rows = np.random.default_rng(0).normal(size=(48, 256)).astype(np.float32)
    codes, scales = quantise(rows, blocks)
    theirs, their_scales = np.zeros_like(codes), np.zeros_like(scales)
    zeros = np.zeros((len(rows), -(-codes.shape[1] * blocks.bits // 8)), np.uint8)
    pack = getattr(ort_state, f"quantize_matmul_{blocks.bits}bits")
    pack(theirs, np.ascontiguousarray(rows.T), their_scales, zeros, blocks.size, len(rows), rows.shape[1], True)
    np.testing.assert_allclose(scales, their_scales, rtol=1e-6)
    # Halves may be rounded either way.
    ours, other = (restored(each, scales, blocks, 256) for each in (codes, theirs))
    assert np.mean(ours != other) < 0.01 and (np.abs(ours - other) <= np.repeat(np.abs(scales), blocks.size, axis=1) * 1.001).all()


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
@pytest.mark.parametrize("columns", [256, 192, 40])
def test_the_kernel_multiplies_by_what_is_stored(blocks, columns):
    rng = np.random.default_rng(0)
    weights, x = (rng.normal(size=(count, columns)).astype(np.float32) for count in (24, 3))
    codes, scales = quantise(weights, blocks)
    node = helper.make_node("MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft", N=24, K=columns, bits=blocks.bits,
                            block_size=blocks.size)  # fmt: skip
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, size]) for name, size in (("x", columns), ("y", 24))]
    graph = helper.make_graph(
        [node], "product", values[:1], values[1:],
        [onnx.numpy_helper.from_array(codes, "codes"), onnx.numpy_helper.from_array(scales, "scales")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    session = ort.InferenceSession(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(y, x @ restored(codes, scales, blocks, columns).T, rtol=1e-4, atol=1e-4)


def test_rows_are_made_a_few_at_a_time(checkpoints, monkeypatch):
    """Merged matrices stand one after the other, and chunks change nothing."""
    checkpoint = open_checkpoint(str(checkpoints("tiny", "hf")))
    names = [f"model.language_model.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    matrix = FromCheckpoint(tuple((name, checkpoint.tensors[name].shape) for name in names), transposed=True)
    blocks = Blocks(4, 32)
    codes, scales = quantise(np.concatenate([checkpoint.tensors[name].read().astype(np.float32) for name in names]), blocks)
    monkeypatch.setattr("janus_export.recipes._ROWS", 7)
    for part, whole in (("codes", codes), ("scales", scales)):
        recipe = Quantised(matrix, blocks, part)
        made = recipe.make(checkpoint.tensors, whole.dtype)
        assert made.shape == recipe.shape
        np.testing.assert_array_equal(made, whole)


def test_a_value_that_is_no_number_is_refused(tmp_path):
    import safetensors.numpy

    safetensors.numpy.save_file({"w": np.array([[1, np.nan]], np.float32)}, tmp_path / "model.safetensors")
    from janus_export.checkpoint.checkpoint import _read_safetensors

    tensors = dict(_read_safetensors(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match="w holds NaN or Inf"):
        Quantised(FromCheckpoint((("w", (1, 2)),), True), Blocks(8, 16), "codes").make(tensors, np.dtype(np.uint8))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_every_graph_keeps_its_tolerance(bundles, precision):
    with janus_runtime.load(bundles("small", precision), backend="cpu") as janus:
        checks, graphs = list(verify_goldens(janus._engines)), janus.manifest.graphs
    assert {check.graph.split(".")[0] for check in checks} >= {"language_model", "image_head", "vision_encoder", "text_embed"}
    for check in checks:
        weights = graphs[check.graph].format.weights
        assert weights in ("float32", "int8", precision), check
        assert check.passed and check.tolerance == tolerance(graphs[check.graph].kind, weights), check


@pytest.mark.parametrize(
    ("precision", "graph", "product"),
    [
        ("int8", "language_model.gqa", "MatMulIntegerToFloat"),
        ("int8", "language_model.gqa_cuda", "MatMulNBits"),
        ("int8", "vision_encoder", "MatMulNBits"),
        ("int8", "vision_encoder.cpu", "MatMulIntegerToFloat"),
        ("int4", "language_model.gqa", "MatMulNBits"),
        ("int4", "vision_encoder.cpu", "MatMulIntegerToFloat"),
    ],
)
def test_stored_matrices_are_integers_and_nothing_else_is(bundles, precision, graph, product):
    model = onnx.load(bundles("small", precision) / f"{graph}.onnx", load_external_data=False)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in (product, "MatMul") and stored.keys() & set(node.input)]
    assert {node.op_type for node in products} == {product}
    for node in products:
        if product == "MatMulNBits":
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            assert attributes["bits"] == (4 if precision == "int4" and graph.startswith("language_model") else 8)
            assert attributes["accuracy_level"] == 4
    codes = TensorProto.UINT8 if product == "MatMulNBits" else TensorProto.INT8
    assert {kind for name, kind in stored.items() if name.endswith("codes")} == {codes}
    assert not {kind for name, kind in stored.items() if "norm" in name} - {TensorProto.FLOAT, TensorProto.FLOAT16}


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_what_draws_pixels_stays_whole(bundles, precision):
    decoder = onnx.load(bundles("small", precision) / "image_decoder.onnx", load_external_data=False)
    assert not {"MatMulNBits", "MatMulIntegerToFloat"} & {node.op_type for node in decoder.graph.node}


def test_an_int4_bundle_is_smaller_and_still_draws_and_answers(bundles):
    sizes = {}
    for precision in ("fp32", "int8", "int4"):
        folder = bundles("small", precision)
        sizes[precision] = (folder / "weights.data").stat().st_size
        with janus_runtime.load(folder) as janus:
            (picture,) = janus.generate("a red circle", seed=1)
            assert picture.image.size == (80, 80)
            assert "".join(janus.describe(picture.image, max_tokens=4))
    assert sizes["int4"] < sizes["int8"] < sizes["fp32"]
