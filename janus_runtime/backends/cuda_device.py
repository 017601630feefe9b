"""A GPU as a `device.Device`, through cuda.core: memory, one stream, captured graphs, our kernels compiled for it by NVRTC.

Importing this needs no CUDA; opening a `CudaDevice` does. All work goes to one stream, or while capturing to the builder's.
"""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..bundle.interface import DType
from ..decoding.device import DeviceArray, Kernels
from ..errors import BackendError, OutOfMemory, first_line
from ..packages import importing, install_hint
from .cuda_array import CudaArray
from .cuda_kernels import PARAMETERS, SOURCE, CudaKernels, address

_ORDINAL = 0
Made = TypeVar("Made")


class CudaDevice:
    """The first GPU that CUDA shows. For one thread at a time; threads may change between calls.

    Raises BackendError if cuda.core is not installed or there is no GPU that can be used.
    """

    def __init__(self) -> None:
        self._core, self._driver, self._error = _cuda()
        self.lock = threading.RLock()
        self.reclaim: Callable[[], None] = lambda: None
        self._threads = threading.local()
        self._guard = _Working(self._enter_thread, (self._error, RuntimeError))
        try:
            gpu = self._core.Device(_ORDINAL)
            gpu.set_current()
        # The driver's absence is a RuntimeError, that of a GPU a ValueError or the driver's.
        except (RuntimeError, ValueError, self._error) as error:
            raise BackendError(
                f"no NVIDIA GPU can be used here ({first_line(error)}); expected one that nvidia-smi lists: "
                "install NVIDIA's driver, or use backend 'cpu'"
            ) from None
        with self._working():
            self.name: str = gpu.name
            major, minor = gpu.compute_capability
            self.compute_capability = f"{major}.{minor}"
            self._memory = self._core.DeviceMemoryResource(_ORDINAL)
            self._pinned_memory = self._core.LegacyPinnedMemoryResource()
            self._blocking = self._core.EventOptions(blocking_sync=True)
            self._stream = gpu.create_stream()
        # Where work goes now: the stream, or while capturing the builder's, with what its copies read from.
        self._queue = self._stream
        self._recorded: list[Any] | None = None
        self._kept: list[Callable[[], None]] | None = None
        # Copies of uploaded values, each with the event after which nobody reads it.
        self._staged: deque[tuple[NDArray[Any], Any]] = deque()
        self._uncertain: list[Any] = []
        self._functions = self._compile(f"sm_{major}{minor}")
        self.kernels: Kernels = CudaKernels(self._launch)

    @property
    def stream_handle(self) -> int:
        """The CUDA stream that other libraries must use right now."""
        return int(self._queue.handle)

    @property
    def free_bytes(self) -> int:
        """Of the GPU, with what our pool keeps of freed memory for the next who asks."""
        return self._memory_info()[0]

    @property
    def total_bytes(self) -> int:
        return self._memory_info()[1]

    def empty(self, shape: tuple[int, ...], dtype: DType | str) -> CudaArray:
        with self._working():
            return self.with_reclaim(lambda: self._allocate(self._memory, "GPU memory", shape, dtype))

    def with_reclaim(self, make: Callable[[], Made]) -> Made:
        """What `make` makes, tried once more with memory reclaimed. Raises OutOfMemory."""
        try:
            return make()
        except OutOfMemory:
            self.reclaim()
            return make()

    def clear(self, target: DeviceArray) -> None:
        with self._working():
            self._check(self._driver.cuMemsetD8Async(address(target), 0, target.nbytes, self._queue.handle))

    def pinned(self, shape: tuple[int, ...], dtype: DType | str) -> tuple[CudaArray, NDArray[Any]]:
        with self._working():
            array = self._allocate(self._pinned_memory, "page-locked memory", shape, dtype)
        view = np.asarray(_HostMemory(array))
        view[...] = 0
        return array, view

    def upload(self, values: NDArray[Any], target: DeviceArray) -> None:
        _expect_like(values, target)
        # Page-locked or not, the copy may read its source late: it reads ours.
        staged = np.array(values, order="C")
        with self._working():
            while self._staged and self._staged[0][1].is_done:
                self._staged.popleft()
            # An error may come after the copy was queued: then it is kept for good.
            kept = self._recorded if self._recorded is not None else self._uncertain
            kept.append(staged)
            self._check(self._driver.cuMemcpyHtoDAsync(address(target), staged.ctypes.data, staged.nbytes, self._queue.handle))
            if kept is self._uncertain:
                self._staged.append((staged, self._stream.record()))
                kept.pop()

    def download(self, source: DeviceArray) -> NDArray[Any]:
        """Waits for all work, then copies. Raises BackendError while capturing."""
        self._expect_no_capture("download")
        values = np.empty(source.shape, source.dtype)
        with self._working():
            self._check(self._driver.cuMemcpyDtoHAsync(values.ctypes.data, address(source), values.nbytes, self._stream.handle))
            self._stream.sync()
        return values

    def event(self) -> "CudaEvent":
        """Queues an event. Raises BackendError while capturing."""
        self._expect_no_capture("event")
        with self._working():
            return CudaEvent(self, self._stream.record(options=self._blocking))

    def capture(self, work: Callable[[], None]) -> "CudaReplay":
        """Records what `work` queues on `stream_handle`. Arrays that it uses must outlive the replay."""
        self._expect_no_capture("capture")
        with self._working():
            builder = self._core.Device(_ORDINAL).create_graph_builder()
        try:
            with self._working():
                builder.begin_building()
            self._queue, self._recorded = builder.stream, []
            work()
            with self._working():
                graph = builder.end_building().complete()
                graph.upload(self._stream)
            return CudaReplay(self, graph, self._recorded)
        finally:
            self._queue, self._recorded = self._stream, None
            # Ends a capture that failed on the way, of which CUDA may complain again: the first error says why.
            with suppress(self._error):
                builder.close()

    def call(self, call: Callable[[], None]) -> None:
        """Does `call`, which queues work at the same addresses whenever it is done, and keeps it where calls are kept."""
        if self._kept is not None:
            self._kept.append(call)
        call()

    def keep_calls(self, work: Callable[[], None]) -> list[Callable[[], None]]:
        """Does `work` -> the calls that it made, for `repeat`."""
        kept: list[Callable[[], None]] = []
        self._kept = kept
        try:
            work()
        finally:
            self._kept = None
        return kept

    def repeat(self, calls: list[Callable[[], None]]) -> None:
        """Makes kept calls again."""
        with self._working():
            for call in calls:
                call()

    def abandon_capture(self) -> None:
        """Ends a capture of the stream that a library began and could not finish."""
        with self._working(), suppress(self._error):
            (status,) = self._check(self._driver.cuStreamIsCapturing(self._stream.handle))
            if status != self._driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE:
                self._driver.cuStreamEndCapture(self._stream.handle)

    def _working(self) -> "_Working":
        """CUDA's calls go here: the context belongs to a thread, and errors are ours."""
        return self._guard

    def _enter_thread(self) -> None:
        self._core.Device(_ORDINAL).set_current()
        if not hasattr(self._threads, "relaxed"):
            # Else waiting for an event in this thread would end a capture of ONNX Runtime in another.
            self._check(self._driver.cuThreadExchangeStreamCaptureMode(self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED))
            self._threads.relaxed = True

    def _launch(self, kernel: str, grid: tuple[int, int], block: tuple[int, int], arguments: list[Any]) -> None:
        with self._working():
            config = self._core.LaunchConfig(grid=grid, block=block)
            self.call(partial(self._core.launch, self._queue, config, self._functions[kernel], *arguments))

    def _compile(self, arch: str) -> dict[str, Any]:
        try:
            program = self._core.Program(SOURCE.read_text(), "c++", self._core.ProgramOptions(name=SOURCE.name, arch=arch))
            code = program.compile("cubin")
            return {name: code.get_kernel(name) for name in PARAMETERS}
        # RuntimeError: NVRTC itself is not installed.
        except (RuntimeError, self._error) as error:
            raise BackendError(
                f"NVRTC could not compile our kernels for {self.name}, {arch} ({first_line(error)}); expected NVRTC of CUDA 12 or 13 "
                f"and a GPU that it supports: {install_hint('gpu')}"
            ) from error

    def _allocate(self, memory: Any, kind: str, shape: tuple[int, ...], dtype: DTypeLike) -> CudaArray:
        array = CudaArray(0, tuple(shape), np.dtype(dtype), None)
        try:
            # Engines want an address for a tensor of no numbers, too.
            buffer = memory.allocate(max(array.nbytes, 1), stream=self._stream)
        except self._error as error:
            if "OUT_OF_MEMORY" not in str(error):
                raise
            free, total = self._memory_info()
            raise OutOfMemory(
                f"no {kind} for {_size(array.nbytes)} of shape {list(shape)}; the GPU has {_size(free)} free of {_size(total)}: "
                "draw fewer pictures at once, close other programs on this GPU, or use a smaller or int4 bundle"
            ) from None
        return CudaArray(int(buffer.handle), array.shape, array.dtype, buffer)

    def _memory_info(self) -> tuple[int, int]:
        with self._working():
            free, total = self._check(self._driver.cuMemGetInfo())
            pool = self._memory.attributes
            # To the driver what the pool keeps is in use.
            kept = pool.reserved_mem_current - pool.used_mem_current
        return int(free) + kept, int(total)

    def _check(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        """The driver's values, less its status, which must be success."""
        status, *values = result
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise self._error(status.name)
        return tuple(values)

    def _expect_no_capture(self, call: str) -> None:
        if self._recorded is not None:
            raise BackendError(f"got {call} while capturing, expected only work that is queued; move it out of the captured function")


@dataclass(frozen=True)
class CudaEvent:
    _device: CudaDevice
    _event: Any

    def wait(self) -> None:
        with self._device._working():
            self._event.sync()


@dataclass(frozen=True)
class CudaReplay:
    """`_recorded` is what the graph's copies read from."""

    _device: CudaDevice
    _graph: Any
    _recorded: list[Any]

    def launch(self) -> None:
        self._device._expect_no_capture("launch")
        with self._device._working():
            self._graph.launch(self._device._stream)

    def close(self) -> None:
        with self._device._working():
            self._graph.close()


class _HostMemory:
    """Tells NumPy where an array of the host lies, and is kept by NumPy's view, with the memory."""

    def __init__(self, array: CudaArray) -> None:
        self.array = array
        self.__array_interface__ = {"data": (array.ptr, False), "shape": array.shape, "typestr": array.dtype.str, "version": 3}


def _cuda() -> tuple[ModuleType, ModuleType, type[Exception]]:
    """cuda.core, the driver's bindings, and the exception of both."""
    with importing("gpu", "the cuda backend"):
        core = import_module("cuda.core")
        driver = import_module("cuda.bindings.driver")
        utils = import_module("cuda.core._utils.cuda_utils")
    return core, driver, utils.CUDAError


def _expect_like(values: NDArray[Any], target: DeviceArray) -> None:
    if values.shape != target.shape or values.dtype != target.dtype:
        raise BackendError(
            f"upload got {values.dtype} of shape {list(values.shape)}, expected the target's {target.dtype} of shape {list(target.shape)}"
        )


class _Working:
    """Of a device: see `CudaDevice._working`. A class, since a step enters it three times and a generator takes longer."""

    def __init__(self, enter: Callable[[], None], ours: tuple[type[BaseException], ...]) -> None:
        self._enter, self._ours = enter, ours

    def __enter__(self) -> None:
        try:
            self._enter()
        except self._ours as error:
            raise _gpu_failed(error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, self._ours):
            raise _gpu_failed(error) from error


def _gpu_failed(error: BaseException) -> BackendError:
    return BackendError(
        f"the GPU failed ({first_line(error)}); expected no error: start the program again, and if it stays, run 'janus-rt verify'"
    )


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB" if nbytes >= 2**28 else f"{nbytes / 2**20:.2f} MiB"
