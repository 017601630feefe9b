"""How the GPU backends drive their libraries, on stand-ins that keep what they are told: profiles, addresses, captured graphs."""

from types import SimpleNamespace

import numpy as np
import pytest

from janus_runtime.backends.cuda_device import CudaDevice
from janus_runtime.backends.one_thread import OneThread
from janus_runtime.backends.ort_cuda import Captured, OrtCudaEngine
from janus_runtime.bundle.bundle import NANO, Bundle
from janus_runtime.bundle.interface import NumberFormat, TensorSpec
from janus_runtime.bundle.manifest import Graph
from janus_runtime.errors import BackendError, OutOfMemory
from testing.fake_cuda import FakeCuda, FakeSession

SPEC = Graph(
    kind="language_model",
    flavour="slice",
    file="g.onnx",
    format=NumberFormat("float16", "float16"),
    inputs={"embeds": TensorSpec("float16", ("rows", "tokens", 8)), "past_key_0": TensorSpec("float16", ("rows", 1, "max_length", 4))},
    outputs={"hidden": TensorSpec("float16", ("outputs", 8))},
    cache=None,
    weight_bytes=0,
)


class Array:
    """A device's array, of which an engine needs shape, dtype and address."""

    count = 0

    def __init__(self, *shape, dtype="float16"):
        Array.count += 1
        self.shape, self.dtype, self.ptr, self.nbytes = shape, np.dtype(dtype), 4096 * Array.count, 64


class Device:
    name, free_bytes, stream_handle = "NVIDIA Test", 5_000_000_000, 77

    def empty(self, shape, dtype):
        return Array(*shape, dtype=dtype)

    def with_reclaim(self, make):
        return make()

    def call(self, call):
        call()


def tensors(rows, tokens, length):
    return {"embeds": Array(rows, tokens, 8), "past_key_0": Array(rows, 1, length, 4), "hidden": Array(rows, 8)}


class Context:
    def __init__(self):
        self.shapes, self.addresses, self.works, self.profile, self.refused = {}, {}, True, None, None

    def set_optimization_profile_async(self, index, stream):
        self.profile = (index, stream)
        return True

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return name != self.refused

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address % 256 == 0

    def set_device_memory(self, pointer, size):
        self.scratch = (pointer, size)

    def execute_async_v3(self, stream):
        self.stream = stream
        return self.works


class Plan:
    """Two rows over 32 or 64 places step by step, and prompts of up to 16 tokens."""

    num_optimization_profiles = 3
    device_memory_size = 64
    _profiles = [
        {"embeds": ((2, 1, 8), (2, 1, 8), (2, 1, 8)), "past_key_0": ((2, 1, 32, 4), (2, 1, 32, 4), (2, 1, 32, 4))},
        {"embeds": ((2, 1, 8), (2, 1, 8), (2, 1, 8)), "past_key_0": ((2, 1, 64, 4), (2, 1, 64, 4), (2, 1, 64, 4))},
        {"embeds": ((1, 1, 8), (2, 8, 8), (2, 16, 8)), "past_key_0": ((1, 1, 32, 4), (2, 1, 32, 4), (2, 1, 64, 4))},
    ]

    def __init__(self):
        self.made = []

    def get_tensor_profile_shape(self, name, index):
        return self._profiles[index][name]

    def create_execution_context(self, strategy):
        self.made.append(Context())
        return self.made[-1]

    create_execution_context_without_device_memory = lambda self: self.create_execution_context(None)  # noqa: E731


def engine_of(tensorrt, plan=None):
    return tensorrt.TensorRtEngine("language_model.slice", SPEC, Device(), plan or Plan(), SimpleNamespace(last="out of luck"))


@pytest.mark.parametrize("shape, profile", [((2, 1, 32), 0), ((2, 1, 64), 1), ((1, 1, 32), 2), ((2, 7, 48), 2)])
def test_the_narrowest_profile_runs(tensorrt, shape, profile):
    plan = Plan()
    given = tensors(*shape)
    engine_of(tensorrt, plan).enqueue(given)
    (context,) = plan.made
    assert context.profile == (profile, 77) and context.stream == 77
    assert context.addresses == {name: array.ptr for name, array in given.items()}
    assert context.shapes == {name: given[name].shape for name in SPEC.inputs}


def test_contexts_are_made_once_and_share_one_scratch(tensorrt):
    plan = Plan()
    engine = engine_of(tensorrt, plan)
    for shape in ((2, 1, 32), (2, 1, 64), (2, 1, 32), (2, 4, 32)):
        engine.enqueue(tensors(*shape))
    assert len(plan.made) == 3
    assert len({context.scratch for context in plan.made}) == 1 and plan.made[0].scratch[1] == 64


def test_scratch_of_tensorrt_8_6(tensorrt, monkeypatch):
    monkeypatch.delattr(tensorrt.trt, "ExecutionContextAllocationStrategy")
    monkeypatch.delattr(Context, "set_device_memory")
    plan = Plan()
    engine_of(tensorrt, plan).enqueue(tensors(2, 1, 32))
    assert plan.made[0].device_memory > 0


def test_shapes_that_were_not_built(tensorrt):
    with pytest.raises(BackendError, match=r"language_model.slice was built for other shapes than .*\(4, 1, 8\).*--rows and --lengths"):
        engine_of(tensorrt).enqueue(tensors(4, 1, 32))


def test_a_run_that_fails(tensorrt):
    plan = Plan()
    engine = engine_of(tensorrt, plan)
    engine.enqueue(tensors(2, 1, 32))
    plan.made[0].works = False
    with pytest.raises(BackendError, match="language_model.slice refused a run: no reason given; run 'janus-rt verify'"):
        engine.enqueue(tensors(2, 1, 32))
    engine.close()
    with pytest.raises(BackendError, match="is closed; load the bundle again"):
        engine.enqueue(tensors(2, 1, 32))


def test_what_tensorrt_refuses_is_an_error(tensorrt):
    """It goes on with the shape and the address of before."""
    plan = Plan()
    engine = engine_of(tensorrt, plan)
    engine.enqueue(tensors(2, 1, 32))
    odd = tensors(2, 1, 32)
    odd["hidden"].ptr += 128
    with pytest.raises(BackendError, match=r"language_model.slice refused address 0x\w+80 of hidden: no reason given"):
        engine.enqueue(odd)
    (context,) = plan.made
    context.refused = "past_key_0"
    engine.enqueue(tensors(2, 1, 32))  # No shape has changed.
    engine._shapes.clear()
    with pytest.raises(BackendError, match=r"language_model.slice refused shape \[2, 1, 32, 4\] of past_key_0"):
        engine.enqueue(tensors(2, 1, 32))
    context.refused = None
    engine.enqueue(tensors(2, 1, 32))


@pytest.mark.parametrize(
    "reason, kind",
    [
        ("Version tag does not match", BackendError),
        ("an illegal memory access", BackendError),
        ("OutOfMemory: requested 9 GB", OutOfMemory),
    ],
    ids=["other", "illegal", "memory"],
)
def test_a_plan_that_does_not_open(tensorrt, tmp_path, reason, kind):
    backend = tensorrt.TensorRt.__new__(tensorrt.TensorRt)
    backend._device, backend._log = Device(), SimpleNamespace(last=reason)
    backend._runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: None)
    path = tmp_path / "x.plan"
    path.write_bytes(b"no plan")
    with pytest.raises(BackendError, match=f"cannot be opened: {reason}; the GPU has 5.0 GB free") as caught:
        backend._open(path, len(b"no plan"))
    assert type(caught.value) is kind
    with pytest.raises(BackendError, match="x.plan has 7 bytes, expected 8: built again meanwhile; load the bundle again"):
        backend._open(path, 8)


@pytest.fixture
def engine(bundles):
    """A graph of ONNX Runtime's CUDA provider, opened, and its CUDA."""
    thread = OneThread("test")
    with FakeCuda().installed() as cuda:
        yield OrtCudaEngine(Bundle.open(bundles("tiny")), "image_head", CudaDevice(), thread, Captured()), cuda
    thread.close()


def test_a_provider_that_did_not_load_is_an_error(engine, monkeypatch):
    graph, _ = engine
    monkeypatch.setattr(FakeSession, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match="could not load its CUDA provider; .*LD_LIBRARY_PATH"):
        OrtCudaEngine(Bundle.open(NANO), "image_head", graph.device, graph._thread, graph._captured)


def test_out_of_memory_is_named(engine):
    graph, cuda = engine
    cuda.fail_with = "Failed to allocate memory for requested buffer of size 9"
    tensors = {name: graph.device.empty((2, spec.shape[-1]), spec.dtype) for name, spec in (graph.spec.inputs | graph.spec.outputs).items()}
    cuda.fail_at = cuda.count + 1
    with pytest.raises(OutOfMemory, match="failed: CUDA failure: Failed to allocate memory .*batch_size"):
        graph.enqueue(tensors)


def test_a_run_is_on_the_devices_stream_and_not_waited_for(engine):
    graph, cuda = engine
    (session,) = cuda.sessions
    assert session.provider["user_compute_stream"] == str(graph.device.stream_handle)
    options = graph._run_options(-1)
    assert options.get_run_config_entry("gpu_graph_id") == "-1"
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"


def test_a_closed_graph(engine):
    graph, _ = engine
    graph.close()
    with pytest.raises(BackendError, match="image_head is closed; load the bundle again"):
        graph.enqueue({})
