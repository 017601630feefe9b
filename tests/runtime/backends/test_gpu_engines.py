"""How the GPU backends drive their libraries, on stand-ins that keep what they are told: profiles, addresses, captured graphs."""

from types import SimpleNamespace

import numpy as np
import pytest

from janus_runtime.backends import ort_cuda
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.interface import NumberFormat, TensorSpec
from janus_runtime.bundle.manifest import Graph
from janus_runtime.errors import BackendError, OutOfMemory

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


def tensors(rows, tokens, length):
    return {"embeds": Array(rows, tokens, 8), "past_key_0": Array(rows, 1, length, 4), "hidden": Array(rows, 8)}


class Context:
    def __init__(self):
        self.shapes, self.addresses, self.works, self.profile = {}, {}, True, None

    def set_optimization_profile_async(self, index, stream):
        self.profile = (index, stream)
        return True

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

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
    with pytest.raises(BackendError, match="language_model.slice failed: out of luck"):
        engine.enqueue(tensors(2, 1, 32))
    engine.close()
    with pytest.raises(BackendError, match="is closed; load the bundle again"):
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


class Binding:
    def __init__(self):
        self.inputs, self.outputs, self.host = {}, {}, {}

    def bind_input(self, name, device, number, dtype, shape, pointer):
        self.inputs[name] = (device, number, dtype, shape, pointer)

    def bind_output(self, name, device, number, dtype, shape, pointer):
        self.outputs[name] = (device, number, dtype, shape, pointer)

    def bind_cpu_input(self, name, array):
        self.host[name] = int(array)


@pytest.fixture
def cuda(monkeypatch, tiny):
    """`cuda()` -> an engine of ONNX Runtime that keeps (binding, run options), and its list of those."""

    def make(providers=("CUDAExecutionProvider", "CPUExecutionProvider"), graph="language_model.gqa"):
        runs = []

        class Session:
            def __init__(self, path, options, providers):
                self.given = providers

            def get_providers(self):
                return list(providers)

            def io_binding(self):
                return Binding()

            def run_with_iobinding(self, binding, options):
                entries = {key: options.get_run_config_entry(key) for key in ("gpu_graph_id", "disable_synchronize_execution_providers")}
                runs.append((binding, entries))

        monkeypatch.setattr(ort_cuda.ort, "InferenceSession", Session)
        captured = ort_cuda._Captured()
        return ort_cuda.OrtCudaEngine(Bundle.open(tiny), graph, Device(), captured), captured, runs

    return make


def gqa_tensors(engine):
    named = {name: Array(2, dtype=spec.dtype) for name, spec in (engine.spec.inputs | engine.spec.outputs).items()}
    return {**named, "total_sequence_length": np.array(9, np.int32)}


def test_a_run_is_on_the_devices_memory_and_not_waited_for(cuda):
    engine, _, runs = cuda()
    given = gqa_tensors(engine)
    engine.enqueue(given)
    ((binding, entries),) = runs
    assert entries == {"gpu_graph_id": "-1", "disable_synchronize_execution_providers": "1"}
    assert binding.host == {"total_sequence_length": 9}
    assert binding.inputs["embeds"] == ("cuda", 0, np.float32, [2], given["embeds"].ptr)
    assert binding.outputs.keys() == engine.spec.outputs.keys()
    ((provider, options),) = engine._session.given
    assert provider == "CUDAExecutionProvider" and options["user_compute_stream"] == "77"


def test_a_replay_is_a_captured_graph_of_its_own(cuda):
    engine, captured, runs = cuda()
    given = gqa_tensors(engine)
    replays = [ort_cuda._Again(lambda: engine.enqueue(given), captured) for _ in range(2)]
    for replay in (replays[0], replays[1], replays[0]):
        replay.launch()
    engine.enqueue(given)
    assert [entries["gpu_graph_id"] for _, entries in runs] == ["1", "2", "1", "-1"]
    assert runs[0][0] is runs[2][0], "tied once for each graph"
    assert runs[1][0] is not runs[0][0]


def test_a_provider_that_did_not_load_is_an_error(cuda):
    with pytest.raises(BackendError, match="could not load its CUDA provider; .*LD_LIBRARY_PATH"):
        cuda(providers=("CPUExecutionProvider",))


def test_out_of_memory_is_named(cuda):
    engine, _, _ = cuda()

    def fail(binding, options):
        raise RuntimeError("Failed to allocate memory for requested buffer of size 9")

    engine._session.run_with_iobinding = fail
    with pytest.raises(OutOfMemory, match="failed: Failed to allocate memory .*batch_size"):
        engine.enqueue(gqa_tensors(engine))
