"""CudaDevice without a GPU: its errors, the names it uses, and its order of work on a driver made of host memory."""

import ast
import dataclasses
import gc
import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from janus_runtime.backends import cuda_device
from janus_runtime.backends.cuda_array import CudaArray
from janus_runtime.backends.cuda_device import CudaDevice
from janus_runtime.errors import BackendError, OutOfMemory
from janus_runtime.packages import install_hint
from testing.fake_cuda import FakeBuilder, FakeCuda, FakeCudaError


@pytest.fixture
def cuda():
    with FakeCuda().installed() as cuda:
        yield cuda


def test_a_missing_cuda_core_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(cuda_device, "import_module", missing)
    with pytest.raises(BackendError, match="^the cuda backend needs packages that are not installed: ") as error:
        CudaDevice()
    assert str(error.value).endswith(f"; run {install_hint('gpu')}")


def test_no_gpu_here_is_one_line():
    pytest.importorskip("cuda.core", reason="cuda.core is not installed: pip install '.[gpu]'")
    try:
        device = CudaDevice()
    except BackendError as error:
        assert str(error).startswith("no NVIDIA GPU can be used here (") and "use backend 'cpu'" in str(error) and "\n" not in str(error)
    else:
        pytest.skip(f"there is a GPU here: {device.name}")


@pytest.mark.parametrize("error", [FakeCudaError("CUDA_ERROR_NO_DEVICE: none\nmore"), RuntimeError("no driver"), ValueError("device_id")])
def test_a_gpu_that_cannot_be_opened(cuda, error):
    def fail(ordinal):
        raise error

    cuda.core.Device = fail
    with pytest.raises(BackendError, match="no NVIDIA GPU can be used here") as caught:
        CudaDevice()
    assert "\n" not in str(caught.value)


def test_it_says_what_it_is(cuda):
    device = CudaDevice()
    assert (device.name, device.compute_capability) == ("NVIDIA Fake", "9.0")
    assert device.free_bytes == device.total_bytes == 2**20


def test_memory_is_freed_with_the_last_view(cuda):
    device = CudaDevice()
    view = device.empty((4, 8), "float32")[1:3].reshape(-1)
    assert cuda.device_memory.used == 128 and view.shape == (16,)
    del view
    gc.collect()
    assert cuda.device_memory.used == 0


def test_memory_that_the_pool_keeps_is_free(cuda):
    device = CudaDevice()
    array = device.empty((2**18,), "uint8")
    assert device.free_bytes == 2**20 - 2**18
    del array
    gc.collect()
    assert cuda.driver.cuMemGetInfo()[1] == 2**20 - 2**18 and device.free_bytes == 2**20


def test_out_of_memory_says_how_much_there_is(cuda):
    device = CudaDevice()
    held = device.empty((2**19,), "bool")
    with pytest.raises(
        OutOfMemory, match=r"^no GPU memory for 4\.00 MiB of shape \[1024, 1024\]; the GPU has 0\.50 MiB free of 1\.00 MiB: "
    ):
        device.empty((1024, 1024), "float32")
    assert held.nbytes == 2**19


def test_upload_takes_values_as_they_are_now(cuda):
    device = CudaDevice()
    target, values = device.empty((2, 3), "int32"), np.arange(6, dtype=np.int32).reshape(3, 2).T
    device.upload(values, target)
    values[...] = -1
    gc.collect()
    assert device.download(target).tolist() == [[0, 2, 4], [1, 3, 5]]
    device.clear(target)
    assert not device.download(target).any()


def test_upload_refuses_another_shape_or_dtype(cuda):
    device = CudaDevice()
    target = device.empty((2,), "int32")
    for values in (np.zeros(3, np.int32), np.zeros(2, np.int64)):
        with pytest.raises(BackendError, match="upload got int.*expected the target's int32"):
            device.upload(values, target)


def test_pinned_memory_is_zero_and_seen_by_both(cuda):
    device = CudaDevice()
    array, view = device.pinned((2, 3), "int32")
    assert not view.any()
    device.upload(np.full((2, 3), 7, np.int32), array)
    assert not view.any()
    device.event().wait()
    assert (view == 7).all()
    del array
    gc.collect()
    assert cuda.host_memory.used == 24  # NumPy's view holds it
    del view
    gc.collect()
    assert cuda.host_memory.used == 0


def test_a_capture_records_and_does_nothing(cuda):
    device = CudaDevice()
    outside = device.stream_handle
    seqlens, active = device.empty((2,), "int32"), device.empty((2,), "int32")
    target, values, inside = device.empty((1,), "int32"), np.array([5], np.int32), []

    def work():
        inside.append(device.stream_handle)
        device.kernels.advance_gqa(seqlens, active)
        device.upload(values, target)

    replay = device.capture(work)
    values[0] = 6
    device.event().wait()
    assert cuda.launches == [] and inside == [cuda.builders[0].stream.handle] and inside != [outside]
    assert device.stream_handle == outside and cuda.builders[0].state == "closed"
    gc.collect()
    for _ in range(2):
        replay.launch()
    assert device.download(target).tolist() == [5]
    assert cuda.launches == [("advance_gqa", (seqlens.ptr, active.ptr, np.int32(2)))] * 2
    assert type(cuda.launches[0][1][2]) is np.int32  # an int would be passed as an address


def test_a_capture_that_fails_leaves_the_device_as_it_was(cuda):
    device = CudaDevice()
    outside = device.stream_handle
    for call in (lambda: device.event(), lambda: device.download(device.empty((1,), "int32"))):
        with pytest.raises(BackendError, match="while capturing, expected only work that is queued"):
            device.capture(call)
        assert device.stream_handle == outside and cuda.builders[-1].state == "closed"
    device.event().wait()


def test_what_a_failed_capture_uploaded_is_forgotten(cuda):
    device = CudaDevice()
    target, values = device.empty((1,), "int32"), np.array([5], np.int32)
    with pytest.raises(BackendError, match="got event while capturing"):
        device.capture(lambda: (device.upload(values, target), device.event()))
    device.upload(values + 1, target)
    assert device.download(target).tolist() == [6]
    replay = device.capture(lambda: device.upload(values + 2, target))
    assert [staged.tolist() for staged in replay._recorded] == [[7]]


def test_a_capture_that_does_not_begin(cuda, monkeypatch):
    def fail(self):
        raise FakeCudaError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    device = CudaDevice()
    with monkeypatch.context() as patch, pytest.raises(BackendError, match=r"the GPU failed \(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\)"):
        patch.setattr(FakeBuilder, "begin_building", fail)
        device.capture(lambda: pytest.fail("nothing is recorded"))
    assert cuda.builders[-1].state == "closed"
    device.upload(np.array([5], np.int32), target := device.empty((1,), "int32"))
    assert device.download(target).tolist() == [5]


def test_the_error_of_a_capture_is_the_first(cuda, monkeypatch):
    """CUDA complains once more about a capture that it ended itself, in words that say nothing of why."""

    def close(self):
        raise FakeCudaError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")

    def work():
        raise BackendError("language_model.slice failed: out of luck")

    monkeypatch.setattr(FakeBuilder, "close", close)
    with pytest.raises(BackendError, match="out of luck"):
        CudaDevice().capture(work)


def test_the_gpus_errors_are_ours(cuda):
    device = CudaDevice()
    event = device.event()

    def fail():
        raise FakeCudaError("CUDA_ERROR_ILLEGAL_ADDRESS: something\nlong")

    cuda.streams[device.stream_handle].work.insert(0, fail)
    with pytest.raises(BackendError, match=r"^the GPU failed \(CUDA_ERROR_ILLEGAL_ADDRESS: something\); [^\n]*$"):
        event.wait()
    cuda.driver.cuMemsetD8Async = lambda *_: (SimpleNamespace(name="CUDA_ERROR_INVALID_VALUE"),)
    with pytest.raises(BackendError, match="CUDA_ERROR_INVALID_VALUE"):
        device.clear(device.empty((1,), "int32"))


def test_events_let_the_host_sleep(cuda):
    assert CudaDevice().event()._event.blocking


def test_kernels_that_do_not_compile(cuda):
    def fail(*source):
        raise FakeCudaError("NVRTC_ERROR_COMPILATION\nkernels.cu(1): error")

    cuda.core.Program = fail
    with pytest.raises(BackendError, match=r"NVRTC could not compile our kernels for NVIDIA Fake, sm_90 \(NVRTC_ERROR_COMPILATION\)"):
        CudaDevice()


@pytest.mark.parametrize("index", [0, -1, 2, slice(None), slice(1, 3), slice(-2, None), slice(2, 2), slice(1, 99)])
def test_views_are_numpys(index):
    numbers = np.arange(4 * 3 * 2, dtype=np.int16).reshape(4, 3, 2)
    array = CudaArray(numbers.ctypes.data, numbers.shape, numbers.dtype, numbers)
    view, wanted = array[index], numbers[index]
    assert (view.shape, view.nbytes) == (wanted.shape, wanted.nbytes)
    assert not view.nbytes or view.ptr == wanted.ctypes.data
    for shape in ((-1,), (2, -1), ((-1, 1),), (view.size,)):
        assert view.reshape(*shape).shape == wanted.reshape(*shape).shape


@pytest.mark.parametrize("index", [4, -5, slice(None, None, 2), slice(None, None, -1)])
def test_views_that_are_not_contiguous_or_not_there(index):
    with pytest.raises(IndexError):
        CudaArray(0, (4, 3), np.dtype("int32"), None)[index]


@pytest.mark.parametrize("shape", [(5,), (-1, 5), (-1, -1), (0, -1), (-12,)])
def test_reshapes_that_do_not_fit(shape):
    with pytest.raises(ValueError, match="expected 12 numbers"):
        CudaArray(0, (4, 3), np.dtype("int32"), None).reshape(*shape)


# What the names in cuda_device.py hold.
HOLDERS = {
    "_core": "cuda.core",
    "_driver": "cuda.bindings.driver",
    "utils": "cuda.core._utils.cuda_utils",
    "gpu": "cuda.core:Device",
    "_stream": "cuda.core:Stream",
    "_queue": "cuda.core:Stream",
    "_event": "cuda.core:Event",
    "buffer": "cuda.core:Buffer",
    "builder": "cuda.core.graph:GraphBuilder",
    "_graph": "cuda.core.graph:Graph",
    "graph": "cuda.core.graph:Graph",
    "program": "cuda.core:Program",
    "code": "cuda.core:ObjectCode",
    "memory": "cuda.core:DeviceMemoryResource",
    "_memory": "cuda.core:DeviceMemoryResource",
}


def test_every_name_of_cuda_exists():
    pytest.importorskip("cuda.core", reason="cuda.core is not installed: pip install '.[gpu]'")
    tree, seen = ast.parse(Path(cuda_device.__file__).read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            holder = getattr(node.value, "attr", getattr(node.value, "id", None))
            if holder in HOLDERS:
                module, _, name = HOLDERS[holder].partition(":")
                owner = importlib.import_module(module)
                assert hasattr(getattr(owner, name) if name else owner, node.attr), (
                    f"line {node.lineno}: {HOLDERS[holder]} has no {node.attr}"
                )
                seen.add(holder)
        if isinstance(node, ast.Call) and getattr(getattr(node.func, "value", None), "attr", "") == "_core":
            function = getattr(importlib.import_module("cuda.core"), node.func.attr)
            keywords = {each.arg for each in node.keywords}
            if dataclasses.is_dataclass(function):
                assert keywords <= {field.name for field in dataclasses.fields(function)}, f"line {node.lineno}: {keywords}"
    assert seen == set(HOLDERS), f"nothing is taken from {set(HOLDERS) - seen}"
    assert hasattr(importlib.import_module("cuda.bindings.driver").CUresult, "CUDA_SUCCESS")
