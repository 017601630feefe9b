"""An int8 KV cache: scales that hold for every position, a kernel that clips, and what a decoder makes of it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper

import janus_runtime
from janus_export import precision
from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.errors import CheckpointError
from janus_export.goldens import make_goldens
from janus_export.onnx.int8_cache import HEADROOM, CacheScales
from janus_export.recipes import RopeTable
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.checks.tolerances import FP32, INT8_CACHE
from janus_runtime.checks.verify import relative_difference, verify_goldens
from janus_runtime.decoding.sessions import open_session

HEADS, SIZE = 2, 8
TEXT = SimpleNamespace(num_heads=HEADS, head_size=SIZE)
QKV = arrays.arrays(np.float32, (2, 5, 3 * HEADS * SIZE), elements=st.floats(-10, 10, width=32))


def watched(qkv):
    scales = CacheScales(TEXT)
    scales.watch(0, torch.from_numpy(qkv))
    return scales


@given(qkv=QKV, position=st.integers(0, 4095))
def test_no_position_turns_a_key_beyond_what_was_seen(qkv, position):
    limit = watched(qkv)["key_0"][0, :, 0] * 127 / HEADROOM
    cos, sin = (RopeTable(name, 4096, SIZE, 10000.0).make({}, np.dtype(np.float32))[position] for name in ("cos", "sin"))
    first, second = np.split(qkv.reshape(2, 5, 3, HEADS, SIZE)[:, :, 1], 2, axis=-1)
    turned = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    assert (np.abs(turned) <= limit * (1 + 1e-5) + 1e-5).all()


@given(qkv=QKV)
def test_values_keep_their_own_channels_range(qkv):
    expected = np.abs(qkv.reshape(10, 3, HEADS, SIZE)[:, 2]).max(0) * HEADROOM / 127
    np.testing.assert_allclose(watched(qkv)["value_0"][0, :, 0], np.maximum(expected, 1e-6 / 127), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reference_that_is_no_number_is_refused(value):
    qkv = np.ones((1, 2, 3 * HEADS * SIZE), np.float32)
    qkv[0, 1, HEADS * SIZE] = value
    with pytest.raises(CheckpointError, match="keys of layer 0 of the reference holds NaN or Inf"):
        watched(qkv)


def test_each_layer_has_its_own_scales_in_their_places(bundles, checkpoints):
    """Keys' first, values' second; what is stored is what the reference showed."""
    folder = bundles("tiny", "int4")
    model = onnx.load(folder / "language_model.gqa.onnx")
    nodes = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    assert [list(node.input[12:]) for node in nodes] == [[f"key_{layer}.scale", f"value_{layer}.scale"] for layer in range(len(nodes))]
    checkpoint = open_checkpoint(str(checkpoints("tiny", "hf")))
    scales = CacheScales(checkpoint.config.text)
    seen = []

    def watch(layer, qkv):
        seen.append(qkv.shape[1])
        scales.watch(layer, qkv)

    tokens = Bundle.open(folder).manifest.tokens
    goldens = make_goldens(checkpoint.config, checkpoint.tensors, ("generation", "understanding"), tokens, watch)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(("key_0.scale", "key_1.scale", "value_0.scale", "value_1.scale")):
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor, str(folder)), scales[tensor.name.removesuffix(".scale")])
    alone = make_goldens(checkpoint.config, checkpoint.tensors, ("generation", "understanding"), tokens)
    assert seen[0] > goldens["language_model/embeds"].shape[1] + 16
    for name, array in alone.items():
        np.testing.assert_allclose(goldens[name], array, atol=FP32 * max(1, np.abs(array).max()), err_msg=name)


def test_the_kernel_stores_what_the_scale_says_and_clips_beyond():
    """A number out of range must not come back with the other sign."""
    qkv = np.zeros((1, 1, 3 * HEADS * SIZE), np.float32)
    key, value = qkv.reshape(3, HEADS, SIZE)[1:]
    key[:], value[:] = np.linspace(-3, 3, HEADS * SIZE).reshape(HEADS, SIZE), np.linspace(9, -9, HEADS * SIZE).reshape(HEADS, SIZE)
    scale = np.full((1, HEADS, 1, SIZE), 2 / 127, np.float32)
    names = ["qkv", "", "", "past_key", "past_value", "lengths", "total", "", "", "", "", "", "scale", "scale"]
    node = helper.make_node("GroupQueryAttention", names, ["context", "key", "value"], domain="com.microsoft", num_heads=HEADS,
                            kv_num_heads=HEADS, kv_cache_bit_width=8, k_quant_type="PER_CHANNEL", v_quant_type="PER_CHANNEL")  # fmt: skip
    cache = np.zeros((1, HEADS, 4, SIZE), np.int8)
    feeds = {"qkv": qkv, "past_key": cache, "past_value": cache, "lengths": np.zeros(1, np.int32), "total": np.array(1, np.int32)}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info("context", TensorProto.FLOAT, None)]
    outputs += [helper.make_tensor_value_info(name, TensorProto.INT8, None) for name in ("key", "value")]
    graph = helper.make_graph([node], "attention", inputs, outputs, [onnx.numpy_helper.from_array(scale, "scale")])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    session = ort.InferenceSession(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    _, stored_key, stored_value = session.run(None, feeds)
    for stored, given_ in ((stored_key, key), (stored_value, value)):
        np.testing.assert_allclose(stored[0, :, 0], np.clip(np.rint(given_ / (2 / 127)), -128, 127), atol=1)


def test_a_decoder_hardly_notices(bundles, checkpoints, tmp_path, monkeypatch):
    """Prefill and steps over an int8 cache against the same integer weights over an fp32 one."""
    ours = bundles("small", "int8")
    real = precision.format_of
    for module in ("bundle", "onnx.trace"):
        monkeypatch.setattr(f"janus_export.{module}.format_of", lambda *graph: replace(real(*graph), int8_cache=False))
    export_bundle(open_checkpoint(str(checkpoints("small", "hf"))), tmp_path / "float", "int8")
    hidden = {}
    for folder, dtype in ((ours, "int8"), (tmp_path / "float", "float32")):
        with janus_runtime.load(folder, backend="cpu") as janus:
            engines = janus._engines
            session = open_session(engines, "text", 2, 60)
            assert {tensor.dtype for tensor in session._cache} == {np.dtype(dtype)}
            rows = [engines.embed_text(np.arange(10, 10 + length, dtype=np.int32)) for length in (40, 25)]
            steps = engines.embed_text(np.arange(100, 140, dtype=np.int32)).reshape(20, 2, 1, -1)
            hidden[dtype] = np.stack([session.fill(rows, [0, 1]), *(session.fill(list(step), [0, 1]) for step in steps)])
    assert 0 < relative_difference(hidden["int8"], hidden["float32"]) <= INT8_CACHE


@pytest.mark.parametrize("only", ["understanding", "generation"])
def test_half_a_model_is_watched_with_what_it_has(bundles, only):
    with janus_runtime.load(bundles("tiny", "int4", only=only), backend="cpu") as janus:
        checks = {check.graph: check for check in verify_goldens(janus._engines)}
    assert checks["language_model.gqa"].passed, checks
