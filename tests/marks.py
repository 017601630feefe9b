"""Marks for tests that not every environment can run."""

import onnxruntime
import pytest

# Python 3.10 has no newer ONNX Runtime than 1.23.
_VERSION = tuple(map(int, onnxruntime.__version__.split(".")[:2]))

# See janus_runtime/backends/ort_cpu.py.
needs_int8_cache = pytest.mark.skipif(
    _VERSION < (1, 31), reason=f"ONNX Runtime {onnxruntime.__version__} has no int8 cache, which int8 and int4 bundles need on a CPU"
)
# language_model.inplace is written for TensorRT; where ONNX Runtime reads it, it is run on the CPU, too.
needs_opset_24 = pytest.mark.skipif(_VERSION < (1, 25), reason=f"ONNX Runtime {onnxruntime.__version__} reads no graph of opset 24")
