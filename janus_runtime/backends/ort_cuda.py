"""ONNX Runtime on a CUDA GPU, in the device's own memory and order of work."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.interface import Flavour
from ..bundle.manifest import WEIGHTS
from ..decoding.capture import capture_is_on, warn_without_capture
from ..decoding.device import STEP_GRAPHS, DecoderLimits, DeviceArray
from ..errors import BackendError, BundleError, OutOfMemory, first_line, is_out_of_memory
from ..packages import importing, install_hint
from .cuda_device import CudaDevice
from .cuda_kernels import address
from .device_graph import DeviceGraph
from .one_thread import OneThread

with importing("gpu", "the cuda backend"):
    import onnxruntime as ort

_PROVIDER = "CUDAExecutionProvider"
# The number of a captured graph that means none.
_PLAIN = -1
# A step's attention is sized by its cache, so a sequence moves on from short ones to long ones.
_LENGTHS = (320, 512, 704, 1216, 2432, 4864, 9728)


class OrtCuda:
    """Raises BackendError where there is no GPU or ONNX Runtime cannot use it.

    ONNX Runtime keeps a context and captured graphs for each thread that calls it and frees neither, so one thread makes all calls.
    """

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
        self._thread = OneThread("janus-cuda")
        self._captured = Captured()
        limit = bundle.manifest.language_model.max_length
        lengths = (*(length for length in _LENGTHS if length < limit), limit)
        self.limits = DecoderLimits(self._device, None, lengths, limit, self._replay, self._thread.run)
        # Whether CUDA's libraries load shows with the first graph: better now, on the smallest, than in the middle of the work.
        self.load(bundle, min(bundle.manifest.graphs, key=lambda name: bundle.manifest.graphs[name].weight_bytes)).close()

    def load(self, bundle: Bundle, graph: str) -> "OrtCudaEngine":
        # Opening a session waits for the whole GPU, which ends any capture that is going on.
        with self._device.lock:
            return self._device.with_reclaim(
                lambda: self._thread.run(lambda: OrtCudaEngine(bundle, graph, self._device, self._thread, self._captured))
            )

    def advice(self, bundle: Bundle) -> str | None:
        return None

    def close(self) -> None:
        self._thread.close()

    def _replay(self, work: Callable[[], None]) -> "CallReplay":
        return CallReplay(work, self._device, self._thread, self._captured)


class Captured:
    """Which captured graph the engines run as just now. ONNX Runtime captures by itself, one graph a session and number."""

    def __init__(self) -> None:
        self.current = _PLAIN
        self.engines: WeakSet[OrtCudaEngine] = WeakSet()
        self._last = 0

    def new(self) -> int:
        self._last += 1
        return self._last


class CallReplay:
    """Work that is done again by its calls of the driver and of ONNX Runtime, which are kept from the first time, with its engines as
    captured graphs. What the host does anew for each step would take longer than a step of Janus-Pro-1B."""

    def __init__(self, work: Callable[[], None], device: CudaDevice, thread: OneThread, captured: Captured) -> None:
        self._work, self._device, self._thread, self._captured = work, device, thread, captured
        self._number = captured.new()
        self._calls: list[Callable[[], None]] | None = None

    def launch(self) -> None:
        self._thread.run(self._launch)

    def close(self) -> None:
        def release() -> None:
            for engine in list(self._captured.engines):
                engine.release(self._number)

        self._calls = None
        self._thread.run(release)

    def _launch(self) -> None:
        if self._calls is not None:
            self._device.repeat(self._calls)
            return
        self._captured.current = self._number
        try:
            self._calls = self._device.keep_calls(self._work)
        finally:
            self._captured.current = _PLAIN


class OrtCudaEngine(DeviceGraph):
    """One graph on the CUDA provider."""

    device: CudaDevice

    def __init__(self, bundle: Bundle, graph: str, device: CudaDevice, thread: OneThread, captured: Captured) -> None:
        super().__init__(graph, bundle.graph(graph), device)
        self._thread, self._captured = thread, captured
        # Tensors of a captured graph stay where they are, so they are bound once.
        self._bindings: dict[int, Any] = {}
        self._options: dict[int, Any] = {}
        self._captures = self.spec.kind in STEP_GRAPHS and capture_is_on()
        path = bundle.path / self.spec.file
        with bundle.unchanged(self.spec.file, WEIGHTS):
            try:
                self._session = self._open(path)
            except Exception as error:  # the binding's exception classes share no public base
                if not self._captures or is_out_of_memory(first_line(error)):
                    raise _failed(f"{path} cannot be opened", error, BundleError) from None
                self._go_on_without_capture(error)
                try:
                    self._session = self._open(path)
                except Exception as again:
                    raise _failed(f"{path} cannot be opened", again, BundleError) from None
        if self._session.get_providers()[0] != _PROVIDER:
            raise BackendError(
                f"ONNX Runtime {ort.__version__} could not load its CUDA provider; its CUDA and cuDNN libraries must be on LD_LIBRARY_PATH "
                "(pip install 'onnxruntime-gpu[cuda,cudnn]')"
            )
        captured.engines.add(self)

    def enqueue(self, tensors: Mapping[str, DeviceArray]) -> None:
        if self._session is None:
            raise BackendError(f"{self.name} is closed; load the bundle again")
        number = self._captured.current
        binding = self._bindings.get(number) or self._thread.run(lambda: self._bind(tensors))
        if number != _PLAIN:
            self._bindings[number] = binding
        self._thread.run(lambda: self.device.call(partial(self._run, binding, number)))

    def release(self, number: int) -> None:
        """Frees the captured graph of this number. On the thread of all calls."""
        self._options.pop(number, None)
        if self._bindings.pop(number, None) is not None and self._captures and self._session is not None:
            self._session.release_captured_graph(number)

    def close(self) -> None:
        def release() -> None:
            self._bindings.clear()
            self._session = None

        self._captured.engines.discard(self)
        self._thread.run(release)

    def _open(self, path: Path) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors come back as exceptions
        options.intra_op_num_threads = 1  # nothing of a graph runs on the host
        provider = {
            "device_id": 0,
            "has_user_compute_stream": 1,
            "user_compute_stream": str(self.device.stream_handle),
            "enable_cuda_graph": int(self._captures),
            "arena_extend_strategy": "kSameAsRequested",
            # On, it rounds the operands of fp32 products to 10 bits.
            "use_tf32": 0,
            # The default times every algorithm of each convolution with the largest workspace, for seconds.
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        return ort.InferenceSession(str(path), options, providers=[(_PROVIDER, provider)], enable_fallback=0)

    def _run(self, binding: Any, number: int) -> None:
        try:
            self._session.run_with_iobinding(binding, self._run_options(number))
        except Exception as error:
            if number == _PLAIN or not self._captures or is_out_of_memory(first_line(error)):
                raise _failed(f"{self.name} failed", error, BackendError) from None
            # A run that is captured computes nothing, so it can be done again.
            self.device.abandon_capture()
            self._go_on_without_capture(error)
            self._run(binding, number)

    def _run_options(self, number: int) -> Any:
        number = number if self._captures else _PLAIN
        if number not in self._options:
            options = self._options[number] = ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(number))
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return self._options[number]

    def _go_on_without_capture(self, error: Exception) -> None:
        self._captures = False
        self._options.clear()
        warn_without_capture("ONNX Runtime", error)

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
