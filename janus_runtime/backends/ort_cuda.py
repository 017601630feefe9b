"""ONNX Runtime on a CUDA GPU, in the device's own memory and order of work."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.interface import Flavour
from ..bundle.manifest import WEIGHTS
from ..decoding.device import DecoderLimits, DeviceArray
from ..errors import BackendError, BundleError, OutOfMemory, first_line, is_out_of_memory
from ..packages import importing, install_hint
from .cuda_device import CudaDevice
from .cuda_kernels import address
from .device_graph import DeviceGraph

with importing("gpu", "the cuda backend"):
    import onnxruntime as ort

_PROVIDER = "CUDAExecutionProvider"
# The number of a captured graph that means none.
_PLAIN = -1
# A step's attention is sized by its cache, so a sequence moves on from short ones to long ones.
_LENGTHS = (320, 512, 704, 1216, 2432, 4864, 9728)


class OrtCuda:
    """Raises BackendError where there is no GPU or ONNX Runtime cannot use it."""

    name = "cuda"

    def __init__(self, bundle: Bundle) -> None:
        if _PROVIDER not in ort.get_available_providers():
            raise BackendError(
                f"ONNX Runtime {ort.__version__} is here without CUDA; run pip uninstall onnxruntime, then {install_hint('gpu')}"
            )
        precision = bundle.manifest.precision
        if precision == "fp32":
            raise BackendError(
                f"{bundle.path} is fp32, in which ONNX Runtime's attention does not run on CUDA; export with "
                "'janus-export checkpoint SRC --out DIR --precision fp16', int8 or int4"
            )
        self.flavour: Flavour = "gqa" if precision == "fp16" else "gqa_cuda"
        self._device = CudaDevice()
        self.description = f"ONNX Runtime {ort.__version__} with CUDA on {self._device.name}"
        self._captured = _Captured()
        limit = bundle.manifest.language_model.max_length
        lengths = (*(length for length in _LENGTHS if length < limit), limit)
        self.limits = DecoderLimits(self._device, None, lengths, limit, lambda work: _Again(work, self._captured))
        # Whether CUDA's libraries load shows with the first graph: better now, on the smallest, than in the middle of the work.
        self.load(bundle, min(bundle.manifest.graphs, key=lambda name: bundle.manifest.graphs[name].weight_bytes)).close()

    def load(self, bundle: Bundle, graph: str) -> "OrtCudaEngine":
        return OrtCudaEngine(bundle, graph, self._device, self._captured)

    def advice(self, bundle: Bundle) -> str | None:
        return None

    def close(self) -> None:
        pass


class _Captured:
    """Which captured graph the engines run as just now. ONNX Runtime captures by itself, one graph a session and number."""

    def __init__(self) -> None:
        self.current = _PLAIN
        self._last = 0

    def new(self) -> int:
        self._last += 1
        return self._last


class _Again:
    """Work that is done again, its engines as captured graphs."""

    def __init__(self, work: Callable[[], None], captured: _Captured) -> None:
        self._work, self._captured, self._number = work, captured, captured.new()

    def launch(self) -> None:
        self._captured.current = self._number
        try:
            self._work()
        finally:
            self._captured.current = _PLAIN


class OrtCudaEngine(DeviceGraph):
    """One graph on the CUDA provider."""

    def __init__(self, bundle: Bundle, graph: str, device: CudaDevice, captured: _Captured) -> None:
        super().__init__(graph, bundle.graph(graph), device)
        self._captured = captured
        # Tensors of a captured graph stay where they are, so they are tied once.
        self._bindings: dict[int, Any] = {}
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors come back as exceptions
        provider = {
            "device_id": 0,
            "has_user_compute_stream": 1,
            "user_compute_stream": str(device.stream_handle),
            "enable_cuda_graph": 1,
            "arena_extend_strategy": "kSameAsRequested",
        }
        path = bundle.path / self.spec.file
        with bundle.unchanged(self.spec.file, WEIGHTS):
            try:
                self._session: Any = ort.InferenceSession(str(path), options, providers=[(_PROVIDER, provider)])
            except Exception as error:  # the binding's exception classes share no public base
                raise _failed(f"{path} cannot be opened", error, BundleError) from None
        if self._session.get_providers()[0] != _PROVIDER:
            raise BackendError(
                f"ONNX Runtime {ort.__version__} could not load its CUDA provider; its CUDA and cuDNN libraries must be on LD_LIBRARY_PATH "
                "(pip install 'onnxruntime-gpu[cuda,cudnn]')"
            )

    def enqueue(self, tensors: Mapping[str, DeviceArray]) -> None:
        if self._session is None:
            raise BackendError(f"{self.name} is closed; load the bundle again")
        number = self._captured.current
        binding = self._bindings.get(number) or self._bind(tensors)
        if number != _PLAIN:
            self._bindings[number] = binding
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(number))
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:
            raise _failed(f"{self.name} failed", error, BackendError) from None

    def close(self) -> None:
        self._bindings.clear()
        self._session = None

    def _bind(self, tensors: Mapping[str, DeviceArray]) -> Any:
        binding = self._session.io_binding()
        for name, array in tensors.items():
            if isinstance(array, np.ndarray):
                binding.bind_cpu_input(name, array)
                continue
            bind = binding.bind_input if name in self.spec.inputs else binding.bind_output
            bind(name, "cuda", 0, array.dtype.type, list(array.shape), address(array))
        return binding


def _failed(what: str, error: Exception, kind: type[BackendError] | type[BundleError]) -> BackendError | BundleError:
    reason = first_line(error)
    if is_out_of_memory(reason):
        return OutOfMemory(f"{what}: {reason}; use a smaller batch_size, or a GPU with more memory")
    return kind(f"{what}: {reason}; run 'janus-rt verify'")
