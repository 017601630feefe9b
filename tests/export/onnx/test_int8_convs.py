"""8-bit convolutions: what is stored, and that ONNX Runtime computes with it what the exporter predicted."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from janus_export.modules.vq import Conv
from janus_export.onnx.int8_convs import PHASES, WEIGHT_LIMIT, ConvScales, input_scales, output_scales, phase_weights, quantise_convs
from janus_export.preview import _int8_conv
from janus_export.recipes import FromCheckpoint

CHANNELS, OUTPUTS, SIZE = 6, 5, 7


def made(seed: int = 0, spread: float = 1.0):
    """x [2, C, S, S], weights [O, C, 3, 3], bias [O]; channels differ in width."""
    rng = np.random.default_rng(seed)
    widths = np.exp(rng.normal(size=(CHANNELS, 1, 1)) * spread)
    x = (rng.normal(size=(2, CHANNELS, SIZE, SIZE)) * widths).astype(np.float32)
    return x, rng.normal(size=(OUTPUTS, CHANNELS, 3, 3)).astype(np.float32), rng.normal(size=OUTPUTS).astype(np.float32)


def scales_for(x, y) -> ConvScales:
    low, high = (getattr(each, side)(axis=(0, 2, 3)) for each, side in ((x, "min"), (x, "max")))
    y_low, y_high = y.min((0, 2, 3)), y.max((0, 2, 3))
    return ConvScales(*input_scales(np.minimum(low, 0), np.maximum(high, 0)), *output_scales(np.minimum(y_low, 0), np.maximum(y_high, 0)))


def convolve(x, weights, bias):
    return F.conv2d(torch.from_numpy(x), torch.from_numpy(weights), torch.from_numpy(bias), padding=1).numpy()


def double(x):
    return x.repeat(2, axis=2).repeat(2, axis=3)


def run(x, weights, bias, scales, doubled):
    """By ONNX Runtime, of a graph that `quantise_convs` has changed."""
    nodes = [helper.make_node("Conv", ["big" if doubled else "x", "part.weight", "part.bias"], ["y"], pads=[1, 1, 1, 1])]
    if doubled:
        nodes.insert(0, helper.make_node("Resize", ["x", "", "factors"], ["big"], mode="nearest", nearest_mode="floor",
                                         coordinate_transformation_mode="asymmetric"))  # fmt: skip
    side = SIZE * 2 if doubled else SIZE
    values = [("x", [2, CHANNELS, SIZE, SIZE]), ("y", [2, OUTPUTS, side, side])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values]
    stored = {"part.weight": weights, "part.bias": bias, **({"factors": np.array([1, 1, 2, 2], np.float32)} if doubled else {})}
    graph = helper.make_graph(nodes, "conv", infos[:1], infos[1:], [from_array(value, name) for name, value in stored.items()])
    model = ir.serde.deserialize_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    recipes = {name: (FromCheckpoint(((name, stored[name].shape),)), "float32") for name in ("part.weight", "part.bias")}
    quantise_convs(model, recipes, {"part": scales})
    assert "Conv" not in [node.op_type for node in model.graph] and "Resize" not in [node.op_type for node in model.graph]
    for name, (recipe, dtype) in recipes.items():
        model.graph.initializers[name].const_value = ir.tensor(recipe.make(Tensors(stored), np.dtype(dtype)), name=name)
    session = ort.InferenceSession(ir.serde.serialize_model(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


class Tensors(dict):
    """Arrays as a checkpoint's tensors."""

    def __getitem__(self, name):
        return _Stored(super().__getitem__(name))


class _Stored:
    stride = None

    def __init__(self, values):
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype

    def rows(self, start, stop):
        return _Stored(self.values[start:stop])

    def read(self):
        return self.values


def predicted(x, weights, bias, scales, doubled):
    conv = Conv(torch.float32, "part", CHANNELS, OUTPUTS, 3)
    conv.weight.data, conv.bias.data = torch.from_numpy(weights), torch.from_numpy(bias)
    return _int8_conv(conv, scales, doubled, torch.from_numpy(double(x) if doubled else x)).numpy()


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_onnx_runtime_computes_what_was_predicted(doubled, seed):
    x, weights, bias = made(seed)
    exact = convolve(double(x) if doubled else x, weights, bias)
    scales = scales_for(x, exact)
    got = run(x, weights, bias, scales, doubled)
    # Sums are whole numbers; only a half may be rounded either way.
    steps = np.abs(got - predicted(x, weights, bias, scales, doubled)) / scales.y_scale[:, None, None]
    assert steps.max() <= 1.001 and np.mean(steps > 0.5) < 0.01
    # And that is the convolution, but for the rounding of 8 bits.
    assert np.sqrt(np.mean((got - exact) ** 2)) < 0.02 * exact.std()


def test_no_processor_saturates():
    """The largest input everywhere, and weights of one sign: a pair of products of 8 bits each leaves 16 bits, and AVX2 cuts it."""
    x = np.full((2, CHANNELS, SIZE, SIZE), 10, np.float32)
    weights, bias = np.ones((OUTPUTS, CHANNELS, 3, 3), np.float32), np.zeros(OUTPUTS, np.float32)
    exact = convolve(x, weights, bias)
    np.testing.assert_allclose(run(x, weights, bias, scales_for(x, exact), False), exact, rtol=0.02)
    assert 2 * 255 * (WEIGHT_LIMIT - 1) < 2**15


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_is_the_convolution_behind_a_doubling(phase):
    x, weights, bias = made()
    whole = convolve(double(x), weights, bias)
    row, column = phase
    padded = F.pad(torch.from_numpy(x), (1 - column, column, 1 - row, row))
    part = F.conv2d(padded, torch.from_numpy(phase_weights(weights, phase)), torch.from_numpy(bias)).numpy()
    np.testing.assert_allclose(part, whole[:, :, row::2, column::2], rtol=1e-4, atol=1e-4)


def test_scales_hold_the_range_that_they_were_made_for():
    rng = np.random.default_rng(0)
    low, high = -rng.uniform(0, 1, 20).astype(np.float32), rng.uniform(0, 50, 20).astype(np.float32)
    scale, zero = input_scales(low, high)
    assert (scale * (255 - zero) >= high * 0.999).all() and (-scale * zero <= low * 0.999).all()
    scale, zeros = output_scales(low, high)
    assert (
        zeros.dtype == np.uint8 and (np.abs((255.0 - zeros) * scale - high) <= scale).all() and (np.abs(zeros * scale + low) <= scale).all()
    )


def test_a_channel_that_is_always_zero():
    none = np.zeros(3, np.float32)
    scale, zero = input_scales(none, none)
    assert (scale > 0).all() and 0 < zero < 255
    assert (output_scales(none, none)[0] > 0).all()


def test_wide_channels_cost_narrow_ones_little():
    """One scale for all channels loses the narrow ones: what scales of channels are for."""
    x, weights, bias = made(1, spread=2.0)
    weights = weights / np.abs(x).max((0, 2, 3))[:, None, None]
    exact = convolve(x, weights, bias)
    own = scales_for(x, exact)
    shared = ConvScales(np.full_like(own.x_scale, own.x_scale.max()), own.x_zero, own.y_scale, own.y_zero)
    errors = [np.mean((predicted(x, weights, bias, scales, False) - exact) ** 2) for scales in (own, shared)]
    assert errors[0] < errors[1] / 4
