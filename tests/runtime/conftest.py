import sys

import pytest


@pytest.fixture
def tensorrt(monkeypatch):
    """The TensorRT backend's module over TensorRT for RTX, whose interface is that of TensorRT 11."""
    library = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (pip install '.[trt-test]')")
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.delitem(sys.modules, "janus_runtime.backends.tensorrt", raising=False)
    import janus_runtime.backends.tensorrt as module

    yield module
    sys.modules.pop("janus_runtime.backends.tensorrt")
