"""Which backend runs, and what is said where one cannot."""

import logging
import re
import shutil
import sys
from types import SimpleNamespace

import pytest

from janus_runtime.backends import open_backend
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.plans import KEY, PLANS, folder_name
from janus_runtime.decoding.engines import Engines
from janus_runtime.errors import BackendError
from janus_runtime.packages import install_hint


@pytest.fixture
def bundle(tiny):
    return Bundle.open(tiny)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that the TensorRT backend finds, by name only."""

    def found(module, name="NVIDIA H200", compute_capability="9.0"):
        device = SimpleNamespace(name=name, compute_capability=compute_capability, free_bytes=0, capture=None)
        monkeypatch.setattr(module, "CudaDevice", lambda: device)

    return found


def no_module(monkeypatch, name, backend):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"janus_runtime.backends.{backend}", raising=False)


def test_an_unknown_name(bundle):
    with pytest.raises(BackendError, match="no backend called 'metal'; expected auto, cpu, cuda, tensorrt"):
        open_backend("metal", bundle)


@pytest.mark.parametrize(
    "name, library, backend, extra",
    [("tensorrt", "tensorrt", "tensorrt", "trt"), ("cuda", "onnxruntime", "ort_cuda", "gpu"), ("cpu", "onnxruntime", "ort_cpu", "cpu")],
)
def test_a_missing_library_is_named_with_its_extra(bundle, monkeypatch, name, library, backend, extra):
    no_module(monkeypatch, library, backend)
    with pytest.raises(BackendError, match=f"the {name} backend needs .*{re.escape(install_hint(extra))}"):
        open_backend(name, bundle)


def test_an_onnx_runtime_without_cuda(bundle, monkeypatch):
    from janus_runtime.backends import ort_cuda

    monkeypatch.setattr(ort_cuda.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match=f"is here without CUDA; .*{re.escape(install_hint('gpu'))}"):
        open_backend("cuda", bundle)


def test_fp32_has_no_form_on_cuda(bundle, monkeypatch):
    from janus_runtime.backends import ort_cuda

    monkeypatch.setattr(ort_cuda.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(BackendError, match="is fp32, .* does not run on CUDA; .*--precision fp16"):
        open_backend("cuda", bundle)


def test_no_gpu(bundle, monkeypatch, tensorrt):
    with pytest.raises(BackendError, match="no NVIDIA GPU can be used here .*nvidia-smi"):
        open_backend("tensorrt", bundle)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_integer_weights_have_no_form_in_tensorrt(bundles, tensorrt, precision):
    with pytest.raises(BackendError, match=rf"the {precision} weights of .*--precision fp16.*janus-export engines"):
        open_backend("tensorrt", Bundle.open(bundles("tiny", precision)))


def test_no_plans_at_all(bundle, tensorrt, gpu):
    gpu(tensorrt)
    with pytest.raises(BackendError, match=r"no TensorRT plans for NVIDIA H200 .*\(none at all\); run 'janus-export engines"):
        open_backend("tensorrt", bundle)


@pytest.fixture
def with_plans(tmp_path, tiny):
    """A bundle that somebody built plans for, on another GPU."""
    for path in tiny.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    folder = tmp_path / PLANS / folder_name("NVIDIA L4", "8.6.0")
    folder.mkdir(parents=True)
    (folder / KEY).write_text("{}")
    return Bundle.open(tmp_path)


def test_plans_for_another_gpu(with_plans, tensorrt, gpu):
    gpu(tensorrt)
    with pytest.raises(BackendError, match=r"no TensorRT plans for NVIDIA H200 .*\(only for nvidia-l4-8.6.0\); run 'janus-export engines"):
        open_backend("tensorrt", with_plans)


def test_auto_takes_the_cpu_where_there_is_no_more(bundle, caplog):
    assert open_backend("auto", bundle).name == "cpu"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_auto_says_why_plans_are_not_used(with_plans, tensorrt, gpu, caplog):
    gpu(tensorrt)
    assert open_backend("auto", with_plans).name == "cpu"
    assert "not on tensorrt" in caplog.text and "only for nvidia-l4-8.6.0" in caplog.text


class Failing:
    """An engine, or a backend of engines like it, that notes when it is closed and may then fail."""

    def __init__(self, name, closed, failing):
        self.name, self.closed, self.failing = name, closed, failing

    def load(self, bundle, graph):
        return Failing(graph, self.closed, self.failing)

    def close(self):
        self.closed.append(self.name)
        if self.name in self.failing:
            raise BackendError(f"{self.name} failed")


@pytest.mark.parametrize("failing", [("b", "backend"), ("a", "b")], ids=str)
def test_everything_is_closed_and_the_first_error_is_said(failing):
    closed = []
    bundle = SimpleNamespace(manifest=SimpleNamespace(graphs={}))
    engines = Engines(bundle, Failing("backend", closed, failing))
    for name in "abc":
        engines[name]
    with pytest.raises(BackendError, match=f"^{failing[0]} failed$"):
        engines.close()
    assert closed == ["a", "b", "c", "backend"]
