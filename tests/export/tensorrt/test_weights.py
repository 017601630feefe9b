"""bf16 and int4 for TensorRT: the rewritten graphs are whole, and compute what the fp16 ones do."""

import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from janus_export.tensorrt.weights import bytes_of, codes_of, interface, rewritten, save, scales_of
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.checks.tolerances import BF16, INT4
from janus_runtime.checks.verify import relative_difference
from janus_runtime.decoding.kv_cache import MASKED

DECODERS = ("language_model.slice", "language_model.inplace")
IN_BF16 = (*DECODERS, "text_head", "image_head", "text_draw", "image_draw", "text_embed", "image_embed")
IN_INT4 = (*DECODERS, "text_head")


@pytest.fixture(scope="module")
def bundle(bundles):
    return Bundle.open(bundles("tiny", "fp16"))


def made(bundle, name, weights, folder):
    """The rewritten graph's file."""
    path = folder / f"{name}.onnx"
    save(rewritten(name, bundle.path / bundle.graph(name).file, weights), path)
    return path


def matrices(path):
    """Name -> the stored tensor, with a rewritten matrix unpacked and scaled (fp32) under its old name."""
    model = ir.load(path)
    stored = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    for node in model.graph:
        if node.op_type == "DequantizeLinear":
            codes, scales = (stored.pop(value.name).astype(np.float32) for value in node.inputs)
            block = node.attributes["block_size"].as_int()
            stored[node.inputs[0].name.removesuffix(".codes")] = codes * np.repeat(scales, block, 0)
    return stored


def step(bundle, name):
    """Three tokens of two rows over a cache of seven places, of which one row holds four and the other two."""
    rng, lengths, tokens, room = np.random.default_rng(0), np.array([4, 2]), 3, 7
    positions = lengths[:, None] + np.arange(tokens)
    own = {
        "last_row": np.array([2, 4], np.int32),
        "position_ids": positions.astype(bundle.graph(name).inputs["position_ids"].dtype),
        "past_mask": np.where(np.arange(room) < lengths[:, None], 0, MASKED).astype(np.float16)[:, None, None],
        "new_mask": np.where(np.tri(tokens, dtype=bool), 0, MASKED).astype(np.float16)[None, None],
        "write_indices": lengths.astype(np.int64),
        "attn_mask": (np.arange(room) <= positions[..., None])[:, None],
    }
    sizes = {"rows": 2, "tokens": tokens, "max_length": room}

    def other(spec):
        return rng.standard_normal([sizes.get(size, size) for size in spec.shape]).astype(np.float16)

    return {key: own[key] if key in own else other(spec) for key, spec in bundle.graph(name).inputs.items()}


def run(path, inputs):
    """All outputs by name, of ONNX Runtime's CPU."""
    session = onnxruntime.InferenceSession(str(path))
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))


@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 64, 128]), st.sampled_from([1e-7, 1e-3, 1.0, 1e4]))
def test_no_weight_is_off_by_more_than_half_a_scale(seed, block, size):
    rng = np.random.default_rng(seed)
    matrix = (rng.standard_normal((2 * block, 6)) * size).astype(np.float16)
    matrix[:block, 0] = 0
    codes, scales = codes_of(matrix, block).astype(np.float32), scales_of(matrix, block)
    assert scales.shape == (2, 6) and scales.dtype == np.float16 and (scales > 0).all() and np.isfinite(scales).all()
    wide = np.repeat(scales.astype(np.float32), block, 0)
    assert (np.abs(codes) <= 7).all() and (codes[:block, 0] == 0).all()
    # The division is of fp32.
    assert (np.abs(codes * wide - matrix.astype(np.float32)) <= (0.5 + 1e-5) * wide).all()


def test_codes_of_a_known_block():
    matrix = np.array([[7, -14], [3.4, 1], [-1.6, 0.9], [0, -7]], np.float16)
    assert scales_of(matrix, 4).tolist() == [[1, 2]]
    assert codes_of(matrix, 4).astype(int).tolist() == [[7, -7], [3, 0], [-2, 0], [0, -4]]
    assert scales_of(matrix, 2).tolist() == [[1, 2], [np.float16(1.6 / 7), 1]]


@pytest.mark.parametrize(("weights", "names"), [("bf16", IN_BF16), ("int4", IN_INT4), ("fp16", ())])
def test_which_graphs_change(bundle, weights, names):
    changed = {name for name, graph in bundle.manifest.graphs.items() if rewritten(name, bundle.path / graph.file, weights)}
    assert changed - {"language_model.gqa"} == set(names)


@pytest.mark.parametrize(("weights", "name"), [*(("bf16", name) for name in IN_BF16), *(("int4", name) for name in IN_INT4)])
def test_files_are_valid_and_as_promised(bundle, tmp_path, weights, name):
    path = made(bundle, name, weights, tmp_path)
    onnx.checker.check_model(str(path), full_check=True)
    model, graph = ir.load(path), interface(name, bundle.graph(name), weights)
    for values, specs in ((model.graph.inputs, graph.inputs), (model.graph.outputs, graph.outputs)):
        got = {value.name: (value.dtype.numpy().name, tuple(getattr(size, "value", size) for size in value.shape)) for value in values}
        assert got == {key: (spec.dtype, spec.shape) for key, spec in specs.items()}
    external = sum(v.const_value.length for v in model.graph.initializers.values() if isinstance(v.const_value, ir.ExternalTensor))
    assert 0 <= bytes_of(model) - external < 2000 and bytes_of(model) == bytes_of(rewritten(name, bundle.path / f"{name}.onnx", weights))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.data", f"{name}.onnx"]


@pytest.mark.parametrize("name", DECODERS)
def test_the_interface_of_bf16_is_that_of_fp16_but_for_the_cache(bundle, name):
    graph = bundle.graph(name)
    before, after = ({**g.inputs, **g.outputs} for g in (graph, interface(name, graph, "bf16")))
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {key for key in before if "_key_" in key or "_value_" in key}
    assert {after[key].dtype for key in changed} == {"bfloat16"}
    assert interface(name, graph, "int4") == interface(name, graph, "fp16") == graph


@pytest.mark.parametrize("name", IN_BF16)
def test_inside_all_that_was_fp16_is_bf16(bundle, tmp_path, name):
    model = ir.load(made(bundle, name, "bf16", tmp_path))
    edge = {value.name for value in [*model.graph.inputs, *model.graph.outputs]}
    known = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True).graph
    half = {value.name for value in [*known.value_info, *known.initializer] if "FLOAT16" == type_of(value)} - edge
    assert not half, f"{name}: {sorted(half)} are still fp16"
    before = matrices(bundle.path / f"{name}.onnx")
    for key, tensor in matrices(tmp_path / f"{name}.onnx").items():
        assert np.array_equal(tensor, before[key].astype(tensor.dtype)), key


def type_of(value):
    return onnx.TensorProto.DataType.Name(value.data_type if isinstance(value, onnx.TensorProto) else value.type.tensor_type.elem_type)


@pytest.mark.parametrize("name", IN_INT4)
def test_every_matrix_is_in_blocks_and_nothing_else_changes(bundle, tmp_path, name):
    path = made(bundle, name, "int4", tmp_path)
    before, after = matrices(bundle.path / f"{name}.onnx"), matrices(path)
    model = ir.load(path)
    packed = {node.inputs[0].name.removesuffix(".codes"): node for node in model.graph if node.op_type == "DequantizeLinear"}
    kinds = ("head",) if name == "text_head" else ("qkv", "output", "gate_up", "down")
    layers = bundle.manifest.language_model.num_layers
    assert len(packed) == (1 if name == "text_head" else 4 * layers) and {key.split(".")[-2] for key in packed} == set(kinds)
    for key, whole in before.items():
        if key not in packed:
            assert np.array_equal(after[key], whole), key
            continue
        block, scales = packed[key].attributes["block_size"].as_int(), packed[key].inputs[1].const_value.numpy()
        assert block == min(128, len(whole) & -len(whole)), f"{key}: blocks of {block} along {len(whole)}"
        assert (np.abs(after[key] - whole) <= (0.5 + 1e-5) * np.repeat(scales.astype(np.float32), block, 0)).all(), key
        # One kernel that unpacks and multiplies is found only where nothing lies between the two.
        assert [user.op_type for user, _ in packed[key].outputs[0].uses()] == ["MatMul"]


@pytest.mark.parametrize("name", DECODERS)
def test_an_int4_decoder_computes_what_the_fp16_one_does(bundle, tmp_path, name):
    inputs = step(bundle, name)
    expected, got = run(bundle.path / f"{name}.onnx", inputs), run(made(bundle, name, "int4", tmp_path), inputs)
    for key, values in expected.items():
        difference = relative_difference(got[key].astype(np.float32), values.astype(np.float32))
        assert difference <= INT4, f"{key}: {difference:.1e}"
    assert not np.array_equal(got["hidden"], expected["hidden"]), "nothing was rounded"


@pytest.mark.parametrize("name", DECODERS)
def test_a_bf16_decoder_computes_what_the_fp16_one_does(bundle, tmp_path, name):
    """In onnx's own evaluator: ONNX Runtime's CPU has no products of bf16."""
    inputs = step(bundle, name)
    expected = run(bundle.path / f"{name}.onnx", inputs)
    evaluator = ReferenceEvaluator(str(made(bundle, name, "bf16", tmp_path)))
    brain = ir.DataType.BFLOAT16.numpy()
    cast = {key: values.astype(brain) if key.startswith(("past_key", "past_value")) else values for key, values in inputs.items()}
    got = dict(zip(evaluator.output_names, evaluator.run(None, cast), strict=True))
    assert got["hidden"].dtype == np.float16
    for key, values in expected.items():
        difference = relative_difference(got[key].astype(np.float32), values.astype(np.float32))
        assert difference <= BF16, f"{key}: {difference:.1e}"
    assert not np.array_equal(got["hidden"], expected["hidden"]), "nothing was rounded"


@pytest.mark.parametrize("weights", ["bf16", "int4"])
def test_one_tensor_in_memory_at_a_time(tmp_path, weights):
    """Eight matrices of 2 MB: their file is written with room for a few."""
    size, count = 1024, 8
    values = [ir.Value(name="x", shape=ir.Shape(["rows", size]), type=ir.TensorType(ir.DataType.FLOAT16))]
    nodes, weight = [], np.ones((size, size), np.float16)
    stored = [ir.Value(name=f"w{i}", shape=ir.Shape(weight.shape), type=ir.TensorType(ir.DataType.FLOAT16)) for i in range(count)]
    for value in stored:
        value.const_value = ir.Tensor(weight, name=value.name)
        nodes.append(ir.node("MatMul", [values[-1], value]))
        values.append(nodes[-1].outputs[0])
        values[-1].name, values[-1].dtype, values[-1].shape = f"y{len(nodes)}", ir.DataType.FLOAT16, values[0].shape
    graph = ir.Graph(values[:1], values[-1:], nodes=nodes, initializers=stored, opset_imports={"": 17}, name="g")
    ir.save(ir.Model(graph, ir_version=8), tmp_path / "text_head.onnx", external_data="weights.data")
    model = rewritten("text_head", tmp_path / "text_head.onnx", weights)
    tracemalloc.start()
    save(model, tmp_path / "rewritten.onnx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "rewritten.data").stat().st_size >= count * size * size / 2
    assert peak < 4 * weight.nbytes, f"{peak / weight.nbytes:.1f} matrices were in memory"
