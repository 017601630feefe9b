"""Products with one scale a column: the graph against its formula, and checkpoints with planted channels that stick out."""

import json
import shutil

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import safetensors.numpy

from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import _read_safetensors, open_checkpoint
from janus_export.onnx.by_column import ByColumn, SmoothedNorm
from janus_export.onnx.judge import Judgement, ProductJudge, Smoothing
from janus_export.onnx.quantise import quantise_graph
from janus_export.precision import format_of
from janus_export.recipes import CheckpointError, FromCheckpoint
from janus_runtime.backends.processor import has_vnni
from janus_runtime.bundle.bundle import Bundle

K, N = 64, 24
MATRIX, NORM = FromCheckpoint((("w", (N, K)),), transposed=True), FromCheckpoint((("n", (K,)),))
SMOOTHING = Smoothing(np.exp2(np.arange(K) % 5 - 2).astype(np.float32))


@pytest.fixture
def tensors(tmp_path):
    rng = np.random.default_rng(0)
    values = {"w": rng.standard_normal((N, K)).astype(np.float32), "n": rng.standard_normal(K).astype(np.float32)}
    safetensors.numpy.save_file(values, tmp_path / "model.safetensors")
    return dict(_read_safetensors(tmp_path / "model.safetensors")), values, tmp_path


@pytest.fixture(params=["0", "1"], ids=["as opened", "made unsigned"])
def precise(request):
    """What the runtime sets where pairs of products overflow, and what it sets elsewhere, if this processor is such a place."""
    if request.param == "0" and not has_vnni():
        pytest.skip("pairs of 8-bit products overflow on this processor")
    return request.param


def product(tensors, judgement, precise="1"):
    """y = layer_norm(x) @ w as a session, quantised as `judgement` says."""
    x, y = (
        ir.Value(name=name, shape=ir.Shape(["rows", size]), type=ir.TensorType(ir.DataType.FLOAT)) for name, size in (("x", K), ("y", N))
    )
    norm, weight = (
        ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT)) for name, shape in (("n", (K,)), ("w", (K, N)))
    )
    scaled = ir.Node("", "Mul", [x, norm], name="scale")
    scaled.outputs[0].name = "scaled"
    multiplied = ir.Node("", "MatMul", [scaled.outputs[0], weight], outputs=[y], name="product")
    graph = ir.Graph([x], [y], nodes=[scaled, multiplied], initializers=[norm, weight], opset_imports={"": 18}, name="g")
    model, recipes, judge = ir.Model(graph, ir_version=10), {"n": (NORM, "float32"), "w": (MATRIX, "float32")}, ProductJudge([MATRIX])
    judge.found[MATRIX] = judgement
    products = quantise_graph(model, recipes, format_of("vision_encoder", "int8", "cpu"), judge)
    for name, (recipe, dtype) in recipes.items():
        model.graph.initializers[name].const_value = ir.tensor(recipe.make(tensors, np.dtype(dtype)))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", precise)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return products, lambda x: session.run(None, {"x": x})[0]


def formula(x, values, factors):
    norm, weight = values["n"] / factors, values["w"].T * factors[:, None]
    x = x * norm
    largest = np.maximum(np.abs(x).max(1, keepdims=True), np.float32(1e-30))
    steps = np.abs(weight).max(0) / 127
    return (np.rint(x * (127 / largest)) @ np.rint(weight / steps)) * largest / 127 * steps


@pytest.mark.parametrize("smooth", [False, True])
def test_a_product_is_its_formula(tensors, precise, smooth):
    stored, values, _ = tensors
    judgement = Judgement(SMOOTHING, column=9.0 if smooth else 0.01, smoothed=0.01, block=0.01)
    products, run = product(stored, judgement, precise)
    assert products == {"by_column": 1, "smoothed": int(smooth), "by_block": 0, "error": 0.01, "block_error": 0.01}
    x = np.random.default_rng(1).standard_normal((5, K)).astype(np.float32)
    x[2] = 0
    got = run(x)
    np.testing.assert_allclose(got, formula(x, values, SMOOTHING.factors if smooth else np.ones(K, np.float32)), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(got[2], 0)
    if not smooth:  # these factors are any, and make it worse
        np.testing.assert_allclose(got, x * values["n"] @ values["w"].T, atol=0.05 * np.abs(got).max())


def test_a_product_that_cannot_bear_it_stays_in_blocks(tensors):
    stored, values, _ = tensors
    products, run = product(stored, Judgement(SMOOTHING, column=0.9, smoothed=0.9, block=0.01))
    assert products == {"by_column": 0, "smoothed": 0, "by_block": 1, "error": 0.01, "block_error": 0.01}
    x = np.random.default_rng(1).standard_normal((5, K)).astype(np.float32)
    np.testing.assert_allclose(run(x), x * values["n"] @ values["w"].T, atol=0.5)


def test_a_row_is_the_same_in_any_company(tensors, precise):
    _, run = product(tensors[0], Judgement(SMOOTHING, 0.01, 0.01, 0.01), precise)
    x = np.random.default_rng(1).standard_normal((33, K)).astype(np.float32) * np.exp2(np.arange(33, dtype=np.float32) - 16)[:, None]
    together = run(x)
    for row in range(len(x)):
        np.testing.assert_array_equal(run(x[row : row + 1])[0], together[row])


def test_infinity_shows_in_its_own_row_alone(tensors):
    _, run = product(tensors[0], Judgement(SMOOTHING, 0.01, 0.01, 0.01))
    x = np.ones((3, K), np.float32)
    x[1, 3] = np.inf
    finite = np.isfinite(run(x)).all(1)
    assert list(finite) == [True, False, True]


def test_the_largest_weight_takes_the_last_code_on_either_side(tensors):
    stored, values, _ = tensors
    codes = ByColumn(MATRIX, None, "codes").make(stored, np.dtype(np.int8))
    scales = ByColumn(MATRIX, None, "scales").make(stored, np.dtype(np.float32))
    assert codes.shape == (K, N) and codes.min() == -127 and codes.max() == 127
    restored = codes.astype(np.float32) * scales * 127
    assert (np.abs(restored - values["w"].T) <= np.abs(values["w"]).max(1) / 127 * 0.501).all()


def test_smoothing_changes_exponents_alone(tensors):
    stored, values, _ = tensors
    norm = SmoothedNorm(NORM, SMOOTHING).make(stored, np.dtype(np.float32))
    np.testing.assert_array_equal(norm * SMOOTHING.factors, values["n"])


def test_a_weight_that_is_no_number_is_refused(tmp_path):
    safetensors.numpy.save_file({"w": np.full((N, K), np.inf, np.float32)}, tmp_path / "model.safetensors")
    tensors = dict(_read_safetensors(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match="w holds NaN or Inf"):
        ByColumn(MATRIX, None, "codes").make(tensors, np.dtype(np.int8))


def planted(source, out, changes):
    """A copy of a checkpoint in which channels of some tensors are multiplied: name -> (channel, factor)."""
    shutil.copytree(source, out)
    for file in out.glob("*.safetensors"):
        values = {name: tensor.copy() for name, tensor in safetensors.numpy.load_file(file).items()}
        for name, (channel, factor) in changes.items():
            if name in values:
                values[name][channel] *= np.asarray(factor, values[name].dtype)
        safetensors.numpy.save_file(values, file)
    return out


def test_channels_that_stick_out_are_seen_and_handled(checkpoints, bundles, tmp_path):
    """A norm with a large channel is smoothed, and the product's error stays beside that of blocks."""
    source = planted(checkpoints("tiny", "hf"), tmp_path / "planted", {"model.language_model.layers.1.input_layernorm.weight": (3, 300)})
    manifest = export_bundle(open_checkpoint(str(source)), tmp_path / "bundle", "int8")
    before = Bundle.open(bundles("tiny", "int8")).manifest.graphs["language_model.gqa"].judged
    found = manifest.graphs["language_model.gqa"].judged
    assert (before["smoothed"], before["by_block"]) == (0, 0)
    assert (found["smoothed"], found["by_block"], found["by_column"]) == (1, 0, before["by_column"])
    assert found["error"] <= 2 * found["block_error"]
    text = (tmp_path / "bundle" / "manifest.json").read_text()
    assert json.loads(text)["graphs"]["language_model.gqa"]["judged"]["smoothed"] == 1
    graph = onnx.load(tmp_path / "bundle" / "language_model.gqa.onnx", load_external_data=False).graph
    assert sum(tensor.name.endswith(".smoothed") for tensor in graph.initializer) == 1


def test_large_numbers_do_not_overflow(tensors, precise):
    """Where products are added in pairs of 16 bits, 255 * 127 twice is too much for one."""
    values = {"w": np.ones((N, K), np.float32), "n": np.ones(K, np.float32)}
    path = tensors[2] / "ones.safetensors"
    safetensors.numpy.save_file(values, path)
    _, run = product(dict(_read_safetensors(path)), Judgement(SMOOTHING, 0.01, 0.01, 0.01), precise)
    for rows in (1, 2, 40):
        np.testing.assert_allclose(run(np.ones((rows, K), np.float32)), K, rtol=1e-6)
