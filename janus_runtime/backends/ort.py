"""ONNX Runtime. Memory is NumPy's; every tensor is bound by address, so nothing is copied on the way."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError, BundleError, first_line
from ..manifest import DType
from .base import Array, check_tensors

try:
    import onnxruntime as ort
except ImportError as error:
    raise BackendError(f"the cpu backend needs ONNX Runtime ({error}); pip install 'janus-rt[cpu]'") from None


class OrtCpu:
    name = "cpu"
    flavour = "gqa"

    def __init__(self) -> None:
        self.description = f"ONNX Runtime {ort.__version__} on the CPU"

    def load(self, bundle: Bundle, graph: str) -> "OrtEngine":
        return OrtEngine(bundle, graph)

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        # Zeroed pages are handed out by the system only when first written: a long cache costs what it holds.
        return np.zeros(shape, dtype)

    def advice(self, bundle: Bundle) -> str | None:
        if bundle.manifest.precision == "fp16":
            return (
                "this fp16 bundle runs slower on a CPU than an fp32 one and saves no memory there, since a CPU has no "
                "fp16 kernels; export with 'janus-export checkpoint SRC --out DIR --precision int4', int8 or fp32"
            )
        return None


class OrtEngine:
    """One graph on the CPU provider. See `base.Engine` for the contract."""

    def __init__(self, bundle: Bundle, graph: str) -> None:
        self.name = graph
        self.spec = bundle.graph(graph)
        options = ort.SessionOptions()
        # Errors come back as exceptions; its log would print them a second time.
        options.log_severity_level = 4
        # Engines take turns. Threads wait for a graph's next kernel awake, which saves a tenth of a step, and sleep after its
        # last: spinning on, they would take the next graph's cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        path = bundle.path / self.spec.file
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the binding's exception classes share no public base
            raise BundleError(f"{path} cannot be opened: {first_line(error)}; run 'janus-rt verify'") from None

    def run(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None) -> dict[str, Array]:
        given = outputs or {}
        check_tensors(self.name, self.spec, inputs, given)
        session = self._session
        if session is None:
            raise BackendError(f"{self.name} is closed; load the bundle again")
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, _bind(f"{self.name}.{name}", array))
        for name in self.spec.outputs:
            if name in given:
                binding.bind_ortvalue_output(name, _bind(f"{self.name}.{name}", given[name]))
            else:
                binding.bind_output(name, "cpu")
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            raise BackendError(f"{self.name} failed: {first_line(error)}") from None
        results = zip(self.spec.outputs, binding.get_outputs(), strict=True)
        return {name: value.numpy() for name, value in results if name not in given}

    def close(self) -> None:
        self._session = None


def _bind(name: str, array: Array) -> Any:
    """An OrtValue over the array's own memory; it must be one piece, or ONNX Runtime would take a copy."""
    if not array.flags.c_contiguous:
        raise BackendError(f"{name} got a strided array, expected one contiguous piece of memory")
    return ort.OrtValue.ortvalue_from_numpy(array)
