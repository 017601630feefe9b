"""Plans from bundles: built with TensorRT-RTX, which needs no GPU, and read against TensorRT 8.6's list of operators."""

import ast
import dataclasses
import errno
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from janus_export import bundle as bundle_module
from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.cli import main
from janus_export.tensorrt import builder as builder_module
from janus_export.tensorrt import plans as engines_module
from janus_export.tensorrt.builder import Builder, float_types, pin_types, with_sizes
from janus_export.tensorrt.plans import build_engines, profiles_of
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.interface import TensorSpec
from janus_runtime.bundle.manifest import MAX_STEPS
from janus_runtime.bundle.plans import find_plans
from janus_runtime.errors import BackendError, BundleError, JanusError
from janus_runtime.packages import install_hint
from testing import trt86
from testing.make_checkpoint import ALL_MODELS, make_checkpoint
from testing.published_layouts import MODELS

try:
    import tensorrt_rtx as trt
except ImportError:
    pytest.skip("TensorRT-RTX is not installed (Linux, Python 3.11 and newer: pip install -e '.[trt-test]')", allow_module_level=True)

RTX = {"library": "tensorrt_rtx", "compute_capability": "8.9"}
SMALL = {"rows": (2,), "lengths": (64,), **RTX}


@pytest.fixture(scope="module")
def pro(tmp_path_factory):
    """Janus-Pro-1B in fp16 with all its widths, but two layers of each tower, few text ids and no goldens."""
    whole = MODELS["janus-pro-1b"]
    text = dataclasses.replace(whole.text, num_layers=2, vocab_size=1024)
    cut = dataclasses.replace(whole, text=text, vision=dataclasses.replace(whole.vision, num_layers=2))
    folder = tmp_path_factory.mktemp("pro")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ALL_MODELS, "cut", cut)
        patch.setattr(bundle_module, "make_goldens", lambda *arguments: {})
        checkpoint = make_checkpoint("cut", folder / "checkpoint", dtype="fp16")
        export_bundle(open_checkpoint(str(checkpoint)), folder / "bundle", "fp16")
    shutil.rmtree(checkpoint)
    yield folder / "bundle"
    shutil.rmtree(folder)


@pytest.fixture
def tiny16(bundles, tmp_path):
    return shutil.copytree(bundles("tiny", "fp16"), tmp_path / "tiny16")


def find(path, **other):
    key = {"library": "tensorrt_rtx", "version": trt.__version__, "gpu": "sm 8.9", "compute_capability": "8.9", **other}
    return find_plans(Bundle.open(path), **key)


@pytest.mark.parametrize("flavour", ["slice", "inplace"])
def test_every_graph_of_pro_1b_builds(pro, flavour, monkeypatch):
    """At true widths, with every profile; the builder itself refuses a network whose inputs are not all used.

    A disk with room for just these plans is refused before the first: that some hold their weights twice was reckoned with.
    """
    folder, key = build_engines(pro, flavour=flavour, level=0, **RTX)
    found, read = find(pro)
    assert (found, read) == (folder, key)
    graphs = {name for name in Bundle.open(pro).manifest.graphs if not name.startswith("language_model.")}
    assert set(key.plans) == graphs | {f"language_model.{flavour}"}
    assert (key.rows, key.chunk, key.flavour) == ((2,), 128, flavour)
    assert key.lengths == ((1216,) if flavour == "inplace" else (704, 1216))
    for name, plan in key.plans.items():
        assert plan.bytes >= 0.9 * Bundle.open(pro).manifest.graphs[name].weight_bytes, f"{name} holds too little to hold its weights"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=sum(plan.bytes for plan in key.plans.values())))
    monkeypatch.setattr(Builder, "build", lambda *arguments: pytest.fail("a build began that the disk has no room for"))
    with pytest.raises(JanusError, match="GB free, the plans need"):
        build_engines(pro, flavour=flavour, **RTX)


def test_every_graph_of_janusflow_builds(bundles, tmp_path):
    """Steps over the prompt's cache, and the first, which takes the prompt in, have a profile each."""
    copy = shutil.copytree(bundles("tiny-flow"), tmp_path / "flow")
    folder, key = build_engines(copy, **SMALL)
    assert set(key.plans) == {name for name in Bundle.open(copy).manifest.graphs if not name.endswith((".gqa", ".inplace"))}
    assert all((folder / plan.file).stat().st_size == plan.bytes > 0 for plan in key.plans.values())
    later, first = profiles_of("flow_step", (2, 8), (64, 512), 64)
    assert later == {"images": (1, 1, 4), "tokens": (1, 1, 1), "max_length": (1, 32, 512)}
    assert first == {"images": (1, 1, 4), "tokens": (1, 32, 512), "max_length": (1, 1, 1)}
    # As many as the runtime takes.
    assert profiles_of("time_embed", (2, 8), (64, 512), 64) == [{"steps": (1, 30, MAX_STEPS)}]


def test_a_janusflow_that_only_draws_has_no_decoder_to_choose(bundles):
    builder = types.SimpleNamespace(features=types.SimpleNamespace(in_place=True))
    assert engines_module._flavour(None, Bundle.open(bundles("tiny-flow", only="generation")), builder) == "slice"


def test_polygraphy_finds_every_operator_supported(pro, tmp_path):
    """Of TensorRT-RTX's reader, which is TensorRT 11's."""
    env = {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    prepared = pro / "prepared.onnx"
    try:
        for name, graph in Bundle.open(pro).manifest.graphs.items():
            if name == "language_model.gqa":
                continue
            sizes = {"max_length": 1216} if name == "language_model.inplace" else {}
            prepared.write_bytes(with_sizes(pro / graph.file, sizes))
            command = [
                str(Path(sys.executable).with_name("polygraphy")),
                "inspect",
                "capability",
                str(prepared),
                "-o",
                str(tmp_path / "cut"),
            ]
            result = subprocess.run(command, env=env, capture_output=True, text=True)
            assert "Graph is fully supported by TensorRT" in result.stdout, f"{name}: {result.stdout[-2000:]}"
    finally:
        prepared.unlink(missing_ok=True)


def test_types_are_those_of_the_file(pro):
    """8.6 is told each layer's type as `float_types` finds it: the same as a strongly typed network has by itself."""
    builder = Builder(**RTX)
    for name, graph in Bundle.open(pro).manifest.graphs.items():
        if name != "language_model.gqa":
            network = builder._parse(pro / graph.file, name, {"max_length": 1216} if name.endswith("inplace") else {})
            for layer, found in float_types(network, trt):
                strong = [layer.get_output(i).dtype for i in range(layer.num_outputs)]
                assert [a for a in found if a] == [b for a, b in zip(found, strong, strict=True) if a], f"{name}: {layer.name}"


class Pinned:
    """A layer that notes what it is told; the real ones have no such words any more."""

    def __init__(self, layer):
        self.layer, self.precision, self.outputs = layer, None, {}

    def __getattr__(self, name):
        return getattr(self.layer, name)

    def set_output_type(self, index, dtype):
        self.outputs[index] = dtype


def test_norms_and_softmax_are_pinned_to_fp32_for_8_6(pro):
    network = Builder(**RTX)._parse(pro / "language_model.slice.onnx", "language_model.slice", {})
    kinds = trt.LayerType
    # A cast and a constant say their type themselves: told one, the real ones here raise.
    real = [network.get_layer(i) for i in range(network.num_layers)]
    layers = [layer if layer.type in (kinds.CAST, kinds.CONSTANT) else Pinned(layer) for layer in real]
    pinned = types.SimpleNamespace(
        num_inputs=network.num_inputs, get_input=network.get_input, num_layers=len(layers), get_layer=layers.__getitem__
    )
    pin_types(pinned, trt)
    for kind, dtype in ((kinds.SOFTMAX, trt.float32), (kinds.REDUCE, trt.float32), (kinds.MATRIX_MULTIPLY, trt.float16)):
        told = [(layer.precision, layer.outputs) for layer in layers if layer.type == kind]
        assert told and all(entry == (dtype, {0: dtype}) for entry in told), kind
    assert all(layer.precision is None for layer in layers if layer.type == kinds.SHAPE)


class Config(types.SimpleNamespace):
    """A builder's configuration that notes what it is told."""

    def __init__(self):
        super().__init__(flags={"TF32"}, sources=0b1111)

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.remove(flag)

    def get_tactic_sources(self):
        return self.sources

    def set_tactic_sources(self, sources):
        self.sources = sources


@pytest.mark.parametrize(("half", "flags"), [(True, {"FP16", "OBEY_PRECISION_CONSTRAINTS"}), (False, set())])
def test_8_6_is_asked_for_fp16_only_where_the_file_has_it(monkeypatch, half, flags):
    """What TensorRT 8.6 has: no strong types, CUDA's libraries among its tactics, no cache in place."""
    names = types.SimpleNamespace
    old = names(
        NetworkDefinitionCreationFlag=names(EXPLICIT_BATCH=0), INetworkDefinition=names(), DataType=names(HALF="half", FLOAT="float"),
        BuilderFlag=names(TF32="TF32", FP16="FP16", OBEY_PRECISION_CONSTRAINTS="OBEY_PRECISION_CONSTRAINTS"),
        TacticSource=names(CUBLAS=0, CUBLAS_LT=1, CUDNN=2, EDGE_MASK_CONVOLUTIONS=3), ProfilingVerbosity=names(DETAILED="detailed"),
    )  # fmt: skip
    found = builder_module.features(old)
    assert found == builder_module.Features(explicit_batch=True, strongly_typed=False, in_place=False)
    pinned = []
    monkeypatch.setattr(builder_module, "float_types", lambda network, library: [(None, ["half" if half else "float"])])
    monkeypatch.setattr(builder_module, "pin_types", lambda network, library: pinned.append(network))
    builder = object.__new__(Builder)
    builder._trt, builder.features, builder._here = old, found, True
    config = Config()
    builder._configure(config, "network", 3)
    assert config.flags == flags and pinned == (["network"] if half else [])
    assert config.sources == 0b1000 and config.max_aux_streams == 0 and config.builder_optimization_level == 3


@pytest.fixture(scope="module")
def typed(pro, bundles):
    """Every graph of opset 17 with inferred types: (bundle, name, model, type of each value)."""
    found = []
    for folder in (pro, bundles("tiny"), bundles("tiny-flow")):
        for name, graph in Bundle.open(folder).manifest.graphs.items():
            model = onnx.load(folder / graph.file, load_external_data=False)
            if {opset.domain: opset.version for opset in model.opset_import} != {"": 17}:
                continue
            known = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
            values = {value.name: value.type.tensor_type.elem_type for value in [*known.input, *known.output, *known.value_info]}
            found.append((folder.name, name, model, values | {weight.name: weight.data_type for weight in model.graph.initializer}))
    return found


def name_of(dtype):
    return {"INT64": "INT32"}.get(TensorProto.DataType.Name(dtype), TensorProto.DataType.Name(dtype))


def test_opset_17_is_what_everything_but_two_decoders_is_in(typed, pro):
    names = {name for folder, name, _, _ in typed if folder == pro.name}
    assert set(Bundle.open(pro).manifest.graphs) - names == {"language_model.gqa", "language_model.inplace"}


def test_tensorrt_8_6_has_every_operator_and_type(typed):
    for folder, name, model, values in typed:
        if name == "image_preview":  # for CPUs; no plan is built of it
            continue
        for node in model.graph.node:
            where = f"{folder}, {name}: {node.op_type} {node.name}"
            assert node.op_type in trt86.OPERATORS, f"{where} is not in TensorRT 8.6"
            for side, tensors in (("inputs", node.input), ("outputs", node.output)):
                indices = trt86.INDICES.get(node.op_type, {}).get(side, ())
                for index, tensor in enumerate(tensors):
                    allowed = "INT32" if index in indices else trt86.OPERATORS[node.op_type]
                    allowed = "BOOL" if side == "outputs" and node.op_type in trt86.COMPARISONS else allowed
                    assert not tensor or name_of(values[tensor]) in allowed.split(), f"{where}, {tensor}: {name_of(values[tensor])}"


def test_tensorrt_8_6_s_restrictions_hold(typed):
    for folder, name, model, values in typed:
        constants = {weight.name for weight in model.graph.initializer}
        constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
        for value in model.graph.input:
            assert values[value.name] != TensorProto.INT64, f"{folder}, {name}: input {value.name} is int64, an int32 in 8.6 alone"
        assert TensorProto.DOUBLE not in values.values(), f"{folder}, {name} computes in float64"
        for node in model.graph.node:
            where = f"{folder}, {name}: {node.op_type} {node.name}"
            for index in trt86.CONSTANTS.get(node.op_type, ()):
                fixed = index >= len(node.input) or not node.input[index] or node.input[index] in constants
                assert fixed, f"{where}: input {index} is computed"
            words = {a.name: a.s.decode() for a in node.attribute if a.name in trt86.RESIZE}
            assert node.op_type != "Resize" or all(word in trt86.RESIZE[key] for key, word in words.items()), f"{where}: {words}"


# Variable -> the library's class that it holds, in files that name the library `trt`.
CLASSES = {
    "self._builder": "Builder", "config": "IBuilderConfig", "network": "INetworkDefinition", "parser": "OnnxParser",
    "profile": "IOptimizationProfile", "layer": "ILayer", "cast": "ICastLayer", "tensor": "ITensor", "cache": "ITimingCache",
    "engine": "ICudaEngine", "self._engine": "ICudaEngine", "context": "IExecutionContext", "self._context": "IExecutionContext",
}  # fmt: skip
# Names of 8.6 (and 10) that 11 has no more: used where `features` finds them.
OLD = {
    "trt.BuilderFlag.FP16", "trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS", "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "trt.ILayer.precision", "trt.ILayer.set_output_type", "trt.ICudaEngine.device_memory_size", "trt.IExecutionContext.device_memory",
    "trt.ICudaEngine.create_execution_context_without_device_memory",
}  # fmt: skip


def test_every_tensorrt_name_exists():
    """In the lean bindings of TensorRT 11 where those have the class, else in TensorRT-RTX's."""
    lean = importlib.import_module("tensorrt_lean")
    used = set()
    for path in sorted([*Path("janus_export").rglob("*.py"), *Path("janus_runtime").rglob("*.py")]):
        names = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        if not any(name.startswith(("trt.", "self._trt.")) for name in names):
            continue
        for name in names:
            owner, _, attribute = name.rpartition(".")
            if name.startswith(("trt.", "self._trt.")):
                used.add(re.sub(r"\(.*\)", "", name.removeprefix("self._")))
            elif owner in CLASSES:
                used.add(f"trt.{CLASSES[owner]}.{attribute}")
    assert {"trt.BuilderFlag.TF32", "trt.IBuilderConfig.max_aux_streams", "trt.Runtime"} <= used, "the walk finds nothing any more"
    missing = []
    for name in used - OLD:
        first, *rest = name.removeprefix("trt.").split(".")
        value = lean if hasattr(lean, first) else trt
        for part in (first, *rest):
            if part in ("name", "__version__") and value is not lean and value is not trt:
                break  # of any enumeration
            if not hasattr(value, part):
                missing.append(name)
                break
            value = getattr(value, part)
    assert not missing, f"no TensorRT 11 has {sorted(missing)}"


def test_profiles_of_a_decoder():
    steps = profiles_of("language_model", (1, 2), (64, 96), 64)
    assert [(p["rows"][0], p["max_length"][0]) for p in steps[:-1]] == [(1, 64), (1, 96), (2, 64), (2, 96)]
    assert all(low == usual == high for p in steps[:-1] for low, usual, high in p.values())
    assert steps[-1] == {"rows": (1, 2, 2), "tokens": (1, 64, 64), "outputs": (1, 2, 2), "max_length": (64, 96, 96)}


def test_what_no_step_runs_has_one_profile():
    assert profiles_of("image_draw", (1, 2, 8), (64,), 64) == profiles_of("image_decoder", (1, 2, 8), (64,), 64) == [{"images": (1, 1, 1)}]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": (0, 2)}, r"row counts \[0, 2\]: expected numbers of 1"),
        ({"lengths": (1,)}, r"cache lengths \[1\]: expected numbers of 2"),
    ],
)
def test_sizes_that_cannot_be(tiny16, wrong, message):
    with pytest.raises(JanusError, match=message):
        build_engines(tiny16, **{**SMALL, **wrong})
    assert not (tiny16 / "plans").exists()


def test_lengths_end_at_the_models_own(tiny16):
    _, key = build_engines(tiny16, **{**SMALL, "lengths": (64, 5000)}, flavour="slice")
    assert key.lengths == (64, 1024) and key.chunk == 64


@pytest.fixture
def built(monkeypatch):
    """Names of the plans that are built; each is a file of a few bytes."""
    names = []

    def build(self, onnx, target, *rest):
        names.append(target.stem)
        target.write_bytes(f"{target.stem} {len(names)}".encode())

    monkeypatch.setattr(Builder, "build", build)
    return names


@pytest.mark.parametrize(("rows", "lengths"), [((2,), (704, 1024)), ((8,), (320, 512, 704, 1024)), ((2, 32), (320, 512, 704, 1024))])
def test_lengths_suit_the_rows(tiny16, built, rows, lengths):
    assert build_engines(tiny16, rows=rows, flavour="slice", **RTX)[1].lengths == lengths


def test_some_graphs_only(tiny16, built):
    """Plans of the others stay if they were built with the same sizes."""
    folder, key = build_engines(tiny16, **SMALL, flavour="slice", graphs=["language_model", "image_head"])
    assert sorted(built) == sorted(key.plans) == ["image_head", "language_model.slice"]
    before = (folder / "language_model.slice.plan").read_bytes()
    _, more = build_engines(tiny16, **SMALL, flavour="slice", graphs=["image_head", "image_draw"])
    assert sorted(more.plans) == ["image_draw", "image_head", "language_model.slice"] and find(tiny16)[1] == more
    assert (folder / "language_model.slice.plan").read_bytes() == before and len(built) == 4
    again = r"are slice, rows \[2\], lengths \[64\], these would be slice, rows \[2, 8\], lengths \[64\]; give the same, or leave"
    with pytest.raises(JanusError, match=again):
        build_engines(tiny16, **{**SMALL, "rows": (8,)}, flavour="slice", graphs=["image_head"])
    with pytest.raises(JanusError, match="no graph called vision to build a plan of; expected some of .*vision_encoder"):
        build_engines(tiny16, **SMALL, flavour="slice", graphs=["vision"])
    assert sorted(find(tiny16)[1].plans) == sorted(more.plans)
    assert len(build_engines(tiny16, **{**SMALL, "rows": (8,)}, flavour="slice")[1].plans) > 3


def test_the_share_that_is_done_rises(tiny16, built):
    shares = []
    build_engines(tiny16, **SMALL, flavour="slice", on_stage=lambda stage, share: shares.append(share))
    assert shares[0] == 0 and shares == sorted(shares) and len(set(shares)) == len(shares) and shares[-1] < 1


def test_an_input_that_no_output_needs_fails_the_build(tiny16, tmp_path):
    """TensorRT leaves it out without a word."""
    model = onnx.load(tiny16 / "text_head.onnx", load_external_data=False)
    model.graph.input.append(onnx.helper.make_tensor_value_info("extra", TensorProto.FLOAT, ["rows"]))
    model.graph.node.append(onnx.helper.make_node("Neg", ["extra"], ["unread"]))
    onnx.save(model, tiny16 / "more.onnx")
    graph = Bundle.open(tiny16).graph("text_head")
    extra = dataclasses.replace(graph, inputs={**graph.inputs, "extra": TensorSpec("float32", ("rows",))})
    build = lambda onnx, graph: Builder(**RTX).build(onnx, tmp_path / "more.plan", graph, [{"rows": (1, 2, 2)}], {}, 0, tmp_path / "t")  # noqa: E731
    with pytest.raises(JanusError, match="TensorRT drops extra of more: no output depends on it"):
        build(tiny16 / "more.onnx", extra)
    with pytest.raises(JanusError, match="network of more has no extra, expected extra input float32"):
        build(tiny16 / "text_head.onnx", extra)
    wrong = dataclasses.replace(graph, inputs={"hidden": TensorSpec("float32", ("rows", 64))})
    with pytest.raises(JanusError, match="network of more has hidden input float16, expected hidden input float32"):
        build(tiny16 / "text_head.onnx", wrong)
    assert list(tmp_path.glob("*.plan")) == []
    bf16 = dataclasses.replace(graph, inputs={"hidden": TensorSpec("bfloat16", ("rows", 64))})
    with pytest.raises(JanusError, match="has hidden input float16, expected hidden input bfloat16"):
        build(tiny16 / "text_head.onnx", bf16)


def test_a_graph_that_is_not_read(tiny16, tmp_path):
    """The reader's words come back on one line."""
    graph = Bundle.open(tiny16).graph("language_model.inplace")
    with pytest.raises(JanusError, match=r"TensorRT .* cannot read gqa: \S") as caught:
        Builder(**RTX).build(tiny16 / "language_model.gqa.onnx", tmp_path / "gqa.plan", graph, [], {}, 0, tmp_path / "t")
    assert "\n" not in str(caught.value)


def test_a_network_that_is_not_built(tiny16, tmp_path):
    """No profile for an input of varying size."""
    graph = Bundle.open(tiny16).graph("text_head")
    with pytest.raises(JanusError, match=r"cannot build text_head: .*profile") as caught:
        Builder(**RTX).build(tiny16 / "text_head.onnx", tmp_path / "text_head.plan", graph, [], {}, 0, tmp_path / "t")
    assert "\n" not in str(caught.value)


def test_plans_for_another_gpu_stay_and_our_own_are_replaced(tiny16):
    first, _ = build_engines(tiny16, **SMALL, flavour="slice")
    other, _ = build_engines(tiny16, **{**SMALL, "compute_capability": "8.6"}, flavour="slice")
    (first / "left over").touch()
    again, key = build_engines(tiny16, **SMALL)
    assert again == first and find(tiny16)[1] == key and key.flavour == "inplace"
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([first.name, other.name])
    assert not (first / "left over").exists()


def failing(monkeypatch, do):
    """The third graph's build calls `do`."""
    real, calls = Builder.build, []

    def build(self, *arguments):
        calls.append(arguments)
        return do() if len(calls) == 3 else real(self, *arguments)

    monkeypatch.setattr(Builder, "build", build)


def test_a_build_that_fails_leaves_what_was_there(tiny16, monkeypatch):
    folder, key = build_engines(tiny16, **SMALL)

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    failing(monkeypatch, full)
    with pytest.raises(JanusError, match="is full and nothing of sm-8-9-.* was kept; make room and build again"):
        build_engines(tiny16, **SMALL, flavour="slice")
    assert find(tiny16) == (folder, key) and [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_killed_build_leaves_nothing_that_is_read(tiny16):
    code = """
import os, signal, sys
from pathlib import Path
from janus_export.tensorrt.plans import build_engines
def stage(name, share):
    if "image_embed" in name:
        os.kill(os.getpid(), signal.SIGKILL)
build_engines(Path(sys.argv[1]), (2,), (64,), on_stage=stage, library="tensorrt_rtx", compute_capability="8.9")
"""
    assert subprocess.run([sys.executable, "-c", code, str(tiny16)]).returncode == -signal.SIGKILL
    left = [path.name for path in (tiny16 / "plans").iterdir()]
    assert left and all(name.startswith(".") for name in left), "the kill came too late to show anything"
    with pytest.raises(BackendError, match=r"has no TensorRT plans for .* \(none at all\)"):
        find(tiny16)
    folder, key = build_engines(tiny16, **SMALL)
    assert find(tiny16) == (folder, key) and [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_two_builds_at_once(tiny16, monkeypatch):
    failing(monkeypatch, lambda: build_engines(tiny16, **SMALL))
    with pytest.raises(JanusError, match="another build is writing"):
        build_engines(tiny16, **SMALL)


def test_a_disk_too_small(tiny16, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(JanusError, match="has 0.0 GB free, the plans need"):
        build_engines(tiny16, **SMALL)


def test_a_new_export_replaces_a_bundle_with_plans(checkpoints, tiny16, monkeypatch):
    build_engines(tiny16, **SMALL)
    monkeypatch.setattr(bundle_module, "make_goldens", lambda *arguments: {})
    export_bundle(open_checkpoint(str(checkpoints("tiny"))), tiny16, "fp16", only="understanding", force=True)
    assert not (tiny16 / "plans").exists() and Bundle.open(tiny16)


def test_no_torch_is_imported(tiny16):
    code = """
import sys
from pathlib import Path
from janus_export import cli
from janus_export.tensorrt.plans import build_engines
build_engines(Path(sys.argv[1]), (2,), (64,), library="tensorrt_rtx", compute_capability="8.9")
print([name for name in ("torch", "transformers", "onnxscript", "huggingface_hub") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code, str(tiny16)], capture_output=True, text=True).stdout.strip() == "[]"


def refused(run, path, *options):
    """The one line on stderr of a command that fails."""
    result = run(main, "engines", path, *options)
    assert result.exit_code == 1 and len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr


def test_a_bundle_of_integer_weights(run, tiny16):
    manifest = dataclasses.replace(Bundle.open(tiny16).manifest, precision="int4")
    (tiny16 / "manifest.json").write_text(manifest.to_json())
    line = refused(run, tiny16)
    assert "int4 as ONNX Runtime packs it, for which TensorRT has no form" in line and "--precision fp16'" in line


def test_no_tensorrt(run, tiny16, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    line = refused(run, tiny16)
    assert "the builder of plans needs packages that are not installed: tensorrt" in line and install_hint("trt") in line


def test_no_gpu(run, tiny16, monkeypatch):
    def device(number):
        raise RuntimeError("libcuda.so.1 not found\nand more of it")

    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setitem(sys.modules, "cuda.core", types.SimpleNamespace(Device=device))
    assert "no NVIDIA GPU can be used here (libcuda.so.1 not found); TensorRT plans are built on the machine that runs them" in refused(
        run, tiny16
    )


def test_a_flavour_that_the_library_or_the_bundle_has_not(tiny, tiny16, monkeypatch):
    with pytest.raises(BackendError, match="attends in place in fp16 alone and .* is fp32; give --flavour slice"):
        build_engines(tiny, **SMALL, flavour="inplace")
    real = builder_module.features
    monkeypatch.setattr(builder_module, "features", lambda library: dataclasses.replace(real(library), in_place=False))
    with pytest.raises(BackendError, match="writes no cache in place, which came with 10.15; give --flavour slice"):
        build_engines(tiny16, **SMALL, flavour="inplace")
    manifest = Bundle.open(tiny16).manifest
    graphs = {name: graph for name, graph in manifest.graphs.items() if name != "language_model.slice"}
    (tiny16 / "manifest.json").write_text(dataclasses.replace(manifest, graphs=graphs).to_json())
    with pytest.raises(BundleError, match="has no graph 'language_model.slice'"):
        build_engines(tiny16, **SMALL)


def test_numbers_that_are_none(run, tiny16):
    result = run(main, "engines", tiny16, "--rows", "2,x")
    assert result.exit_code == 2 and "'2,x': expected numbers with commas between them" in result.stderr
