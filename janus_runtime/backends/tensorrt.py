"""TensorRT 8.6 and newer: plans that `janus-export engines` built for this GPU, run on one stream."""

import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle
from ..bundle.plans import context_without_memory, find_plans
from ..decoding.capture import capture_or_repeat
from ..decoding.device import DecoderLimits, DeviceArray, Replay
from ..errors import BackendError, OutOfMemory, is_out_of_memory
from ..packages import importing
from .cuda_device import CudaDevice
from .cuda_kernels import address
from .device_graph import DeviceGraph

with importing("trt", "the tensorrt backend"):
    import tensorrt as trt


NO_REASON = "no reason given"


class _Log(trt.ILogger):  # type: ignore[misc]
    """Keeps the last error, which calls that fail do not raise."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.last = NO_REASON

    def log(self, severity: Any, message: str) -> None:
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self.last = message.strip().splitlines()[0] if message.strip() else self.last


class TensorRt:
    """Raises BackendError where there is no GPU, or the bundle has no plans for it."""

    name = "tensorrt"

    def __init__(self, bundle: Bundle) -> None:
        if bundle.manifest.precision in ("int8", "int4"):
            raise BackendError(
                f"the {bundle.manifest.precision} weights of {bundle.path} are packed for ONNX Runtime and have no form in TensorRT; "
                "export with 'janus-export checkpoint SRC --out DIR --precision fp16', then run 'janus-export engines DIR'"
            )
        device = CudaDevice()
        self._folder, plans = find_plans(bundle, "tensorrt", trt.__version__, device.name, device.compute_capability)
        self._plans, self._device = plans.plans, device
        self._log = _Log()
        self._runtime = trt.Runtime(self._log)
        self.flavour = plans.flavour
        self.description = f"TensorRT {trt.__version__} on {device.name}"
        self.limits = DecoderLimits(device, plans.rows, plans.lengths, plans.chunk, self._replay)

    def load(self, bundle: Bundle, graph: str) -> "TensorRtEngine":
        spec = bundle.graph(graph)
        if graph not in self._plans:
            raise BackendError(f"{self._folder} has no plan of {graph}; run 'janus-export engines {bundle.path}' again")
        plan = self._plans[graph]
        # Opening a plan waits for the whole GPU, which ends any capture that is going on.
        with bundle.unchanged(), self._device.lock:
            engine = self._device.with_reclaim(lambda: self._open(self._folder / plan.file, plan.bytes))
            return TensorRtEngine(graph, spec, self._device, engine, self._log)

    def advice(self, bundle: Bundle) -> str | None:
        return None

    def close(self) -> None:
        pass

    def _replay(self, work: Callable[[], None]) -> Replay:
        return capture_or_repeat(self._device, work, "TensorRT")

    def _open(self, path: Path, size: int) -> Any:
        # Mapped, not read: a plan is as large as the weights and is copied to the GPU page by page.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            if len(plan) != size:
                raise BackendError(f"{path} has {len(plan)} bytes, expected {size}: built again meanwhile; load the bundle again")
            engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            reason = self._log.last
            kind = OutOfMemory if is_out_of_memory(reason) else BackendError
            raise kind(f"{path} cannot be opened: {reason}; the GPU has {self._device.free_bytes / 1e9:.1f} GB free")
        return engine


class TensorRtEngine(DeviceGraph):
    """One plan. All of its profiles share one block of scratch memory, since they run one after the other."""

    device: CudaDevice

    def __init__(self, name: str, spec: Any, device: CudaDevice, engine: Any, log: _Log) -> None:
        super().__init__(name, spec, device)
        self._engine, self._log = engine, log
        size = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
        self._scratch = device.empty((max(int(size), 1),), "uint8")
        self._contexts: dict[int, Any] = {}
        self._shapes: dict[int, dict[str, tuple[int, ...]]] = {}
        self._profiles = [
            {key: engine.get_tensor_profile_shape(key, index)[::2] for key in spec.inputs}
            for index in range(engine.num_optimization_profiles)
        ]

    def enqueue(self, tensors: Mapping[str, DeviceArray]) -> None:
        shapes = {key: tensors[key].shape for key in self.spec.inputs}
        self._log.last = NO_REASON
        index, context = self._context(shapes)
        # Setting a shape may cost a context its preparations, which a capture could not make up for.
        if self._shapes.get(index) != shapes:
            # Until all are set, the context has shapes of two runs.
            self._shapes.pop(index, None)
            for key, shape in shapes.items():
                self._expect(context.set_input_shape(key, shape), f"shape {list(shape)} of {key}")
            self._shapes[index] = shapes
        for key, array in tensors.items():
            self._expect(context.set_tensor_address(key, address(array)), f"address {address(array):#x} of {key}")
        self._expect(context.execute_async_v3(self.device.stream_handle), "a run")

    def _expect(self, accepted: bool, what: str) -> None:
        """TensorRT logs why it refuses something and goes on with what it had before."""
        if not accepted:
            raise BackendError(f"{self.name} refused {what}: {self._log.last}; run 'janus-rt verify'")

    def close(self) -> None:
        self._contexts.clear()
        self._engine = None

    def _context(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, Any]:
        """Number and context of the first profile that takes these shapes; the builder puts the narrow ones first."""
        if self._engine is None:
            raise BackendError(f"{self.name} is closed; load the bundle again")
        index = next((i for i, profile in enumerate(self._profiles) if all(_takes(profile[key], shapes[key]) for key in shapes)), None)
        if index is None:
            raise BackendError(
                f"{self.name} was built for other shapes than {dict(shapes)}; build again with the --rows and --lengths that you need"
            )
        if index not in self._contexts:
            self._contexts[index] = self.device.with_reclaim(lambda: self._make_context(index))
        return index, self._contexts[index]

    def _make_context(self, index: int) -> Any:
        context = context_without_memory(trt, self._engine)
        if context is None:
            raise OutOfMemory(
                f"{self.name} cannot be made ready: {self._log.last}; close other programs on this GPU, or use a smaller batch_size"
            )
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(self._scratch.ptr, self._scratch.nbytes)
        else:
            context.device_memory = self._scratch.ptr
        if not context.set_optimization_profile_async(index, self.device.stream_handle):
            raise BackendError(f"{self.name}: profile {index} cannot be used: {self._log.last}")
        return context


def _takes(limits: Any, shape: tuple[int, ...]) -> bool:
    least, most = limits
    return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
