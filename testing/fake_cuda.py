"""CUDA without a GPU: cuda.core, the driver and ONNX Runtime's CUDA provider over memory of the host, strict where they are.

Work waits in streams until somebody synchronises. Kernels are ours, compiled for the CPU, where a library of them is given; sessions are
ONNX Runtime's own on its CPU provider. Any call may be made to fail: see `FakeCuda.fail_at`.
"""

import ctypes
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import onnxruntime as ort

from janus_runtime.backends import cuda_device, ort_cuda
from testing.cuda_on_cpu import launch

ALIGNMENT = 256
# Calls that CUDA forbids while another thread captures in its global mode, unless the thread's own mode is relaxed.
_UNSAFE = {"cuMemcpyDtoHAsync", "Event.sync", "Stream.sync", "allocate"}


class FakeCudaError(Exception):
    pass


class FakeStream:
    def __init__(self, cuda):
        self.cuda = cuda
        self.handle = 1000 + len(cuda.streams)
        cuda.streams[self.handle] = self
        self.work = []
        # A GPU works by itself; here whoever waits does the work, one at a time.
        self._working = threading.RLock()

    def sync(self, until=None):
        self.cuda.point("Event.sync" if until else "Stream.sync")
        self.do_all(until)

    def do_all(self, until=None):
        with self._working:
            while self.work and not (until and until.is_done):
                self.work.pop(0)()

    def record(self, options=None):
        self.cuda.point("Stream.record")
        event = SimpleNamespace(is_done=False, blocking=bool(options and options.blocking_sync))
        event.sync = lambda: self.sync(until=event)
        self.work.append(lambda: setattr(event, "is_done", True))
        return event


class FakeMemory:
    """A pool, which keeps what is freed."""

    def __init__(self, cuda, limit):
        self.cuda, self.limit, self.used, self.reserved = cuda, limit, 0, 0

    @property
    def attributes(self):
        return SimpleNamespace(reserved_mem_current=self.reserved, used_mem_current=self.used)

    def allocate(self, size, *, stream):
        self.cuda.point("allocate")
        if self.used + size > self.limit:
            raise FakeCudaError("CUDA_ERROR_OUT_OF_MEMORY: the API call failed")
        self.used += size
        self.reserved = max(self.reserved, self.used)
        return FakeBuffer(self, size, stream)


class FakeBuffer:
    def __init__(self, memory, size, stream):
        self.memory, self.size, self._stream = memory, size, stream
        self.bytes = (ctypes.c_uint8 * (size + ALIGNMENT))()
        start = ctypes.addressof(self.bytes)
        self.handle = start + -start % ALIGNMENT
        # What nobody wrote should be noticed: NaN in every float type.
        ctypes.memset(self.handle, 0xFF, size)

    def __del__(self):
        self.memory.used -= self.size
        # Freed in the order of work.
        self._stream.work.append(lambda kept=self.bytes: None)


class FakeBuilder:
    def __init__(self, cuda):
        self.cuda, self.stream, self.state = cuda, FakeStream(cuda), "new"

    def begin_building(self):
        self.cuda.point("begin_building")
        self.state = "building"

    def end_building(self):
        self.cuda.point("end_building")
        self.state = "built"
        return self

    def complete(self):
        self.cuda.point("complete")
        return FakeGraph(self.cuda, tuple(self.stream.work))

    def close(self):
        self.state = "closed"


class FakeGraph:
    def __init__(self, cuda, work):
        self.cuda, self.work = cuda, work

    def upload(self, stream):
        self.cuda.point("upload")

    def launch(self, stream):
        self.cuda.point("Graph.launch")
        stream.work.extend(self.work)

    def close(self):
        self.work = ()


class FakeCuda:
    """`launches` keeps kernels that ran, (name, arguments). `library`: see `cuda_on_cpu.compile_for_cpu`.

    `count` numbers the calls from 1; the call of number `fail_at` fails with `fail_with`, and those after it work again.
    `while_capturing()` is called in the middle of each capture of ONNX Runtime, by the thread that captures.
    """

    def __init__(self, library=None, limit=2**20):
        self.streams = {}
        self.device_memory, self.host_memory = FakeMemory(self, limit), FakeMemory(self, limit)
        self.builders, self.launches, self.sessions = [], [], []
        self.count, self.fail_at, self.fail_with = 0, None, "CUDA_ERROR_ILLEGAL_STATE"
        self.session = FakeSession
        self.while_capturing, self.stuck = lambda: None, False
        self._library = library
        self._capturing, self._invalidated = None, False
        self._relaxed = set()
        gpu = SimpleNamespace(
            set_current=lambda: None,
            name="NVIDIA Fake",
            compute_capability=(9, 0),
            create_stream=lambda: FakeStream(self),
            create_graph_builder=self._builder,
        )
        self.core = SimpleNamespace(
            Device=lambda ordinal: gpu,
            DeviceMemoryResource=lambda ordinal: self.device_memory,
            LegacyPinnedMemoryResource=lambda: self.host_memory,
            EventOptions=lambda **options: SimpleNamespace(**options),
            ProgramOptions=lambda **options: options,
            Program=lambda *source: SimpleNamespace(compile=lambda kind: SimpleNamespace(get_kernel=lambda name: name)),
            LaunchConfig=lambda **sizes: sizes,
            launch=self._launch,
        )
        self.status = SimpleNamespace(name="CUDA_SUCCESS")
        none, active = SimpleNamespace(name="NONE"), SimpleNamespace(name="ACTIVE")
        self.driver = SimpleNamespace(
            CUresult=SimpleNamespace(CUDA_SUCCESS=self.status),
            CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed"),
            CUstreamCaptureStatus=SimpleNamespace(CU_STREAM_CAPTURE_STATUS_NONE=none),
            cuMemcpyHtoDAsync=self._status("cuMemcpyHtoDAsync", self._copy),
            cuMemcpyDtoHAsync=self._status("cuMemcpyDtoHAsync", self._copy_and_wait),
            cuMemsetD8Async=self._status("cuMemsetD8Async", self._set),
            cuMemGetInfo=lambda: (self.status, self.device_memory.limit - self.device_memory.reserved, self.device_memory.limit),
            cuThreadExchangeStreamCaptureMode=self._status("cuThreadExchangeStreamCaptureMode", self._exchange),
            cuStreamIsCapturing=lambda handle: (self.status, active if self._capturing else none),
            cuStreamEndCapture=self._end_capture,
        )

    @contextmanager
    def installed(self):
        """While this lasts, `CudaDevice` and the cuda backend take this for CUDA."""
        library = SimpleNamespace(
            __version__=ort.__version__,
            get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
            InferenceSession=lambda *given, **options: self.session(self, *given, **options),
            SessionOptions=ort.SessionOptions,
            RunOptions=ort.RunOptions,
        )
        with (
            patch.object(cuda_device, "_cuda", lambda: (self.core, self.driver, FakeCudaError)),
            patch.object(ort_cuda, "ort", library),
        ):
            yield self

    def point(self, name):
        """A call of CUDA, which may be made to fail."""
        self.count += 1
        if self._capturing not in (None, threading.get_ident()) and name in _UNSAFE and threading.get_ident() not in self._relaxed:
            self._invalidated = True
            raise FakeCudaError(f"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: {name} while another thread captures")
        if self.stuck and name in _UNSAFE:
            raise FakeCudaError(f"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: {name} on a stream in capture")
        if self.count == self.fail_at:
            raise FakeCudaError(self.fail_with)

    def begin_capture(self):
        """A library's capture in the global mode of CUDA, which forbids other threads much."""
        self._capturing, self._invalidated = threading.get_ident(), False

    def end_capture(self):
        self._capturing = None
        if self._invalidated:
            raise RuntimeError("CUDA failure 901: operation failed due to a previous error during capture")

    def wait_for_the_gpu(self):
        """What opening a graph does: it ends every capture, in any mode."""
        if self._capturing is not None or any(builder.state == "building" for builder in self.builders):
            self._invalidated = True
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")

    def _status(self, name, call):
        """A function of the driver, which returns its status."""

        def called(*arguments):
            try:
                self.point(name)
            except FakeCudaError as error:
                return (SimpleNamespace(name=str(error)),)
            return (self.status, *(call(*arguments) or ()))

        return called

    def _copy(self, to, source, size, stream):
        self.streams[stream].work.append(lambda: ctypes.memmove(to, source, size))

    def _copy_and_wait(self, to, source, size, stream):
        """To memory that is not page-locked, the driver returns when the copy is done."""
        self._copy(to, source, size, stream)
        self.streams[stream].do_all()

    def _set(self, to, value, size, stream):
        self.streams[stream].work.append(lambda: ctypes.memset(to, value, size))

    def _exchange(self, mode):
        assert mode == "relaxed"
        self._relaxed.add(threading.get_ident())
        return ("global",)

    def _end_capture(self, handle):
        self._capturing, self.stuck = None, False
        return (self.status, None)

    def _builder(self):
        self.point("create_graph_builder")
        self.builders.append(FakeBuilder(self))
        return self.builders[-1]

    def _launch(self, stream, config, kernel, *arguments):
        self.point("launch")

        def work():
            self.launches.append((kernel, arguments))
            if self._library is not None:
                launch(self._library, kernel, config["grid"], config["block"], arguments)

        stream.work.append(work)


class FakeSession:
    """A session of the CUDA provider. `captured` holds what it keeps for each thread and graph: how often that has run."""

    def __init__(self, cuda, path, options, *, providers, enable_fallback):
        assert not enable_fallback, "where CUDA fails, ONNX Runtime would go on with the CPU"
        ((_, self.provider),) = providers
        self._point(cuda, "InferenceSession")
        cuda.wait_for_the_gpu()
        self.cuda, self.captured, self.path = cuda, {}, path
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._stream = cuda.streams[int(self.provider["user_compute_stream"])]
        cuda.sessions.append(self)

    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def io_binding(self):
        return FakeBinding(self._session.io_binding())

    def run_with_iobinding(self, binding, options):
        self._point(self.cuda, "run")
        number = int(options.get_run_config_entry("gpu_graph_id"))
        if number != -1 and self.provider["enable_cuda_graph"]:
            key = threading.get_ident(), number
            self.captured[key] = self.captured.get(key, 0) + 1
            if self.captured[key] == 3:
                self.cuda.begin_capture()
                self.cuda.while_capturing()
                self.cuda.stuck = True  # Where the next call fails, the stream stays in capture.
                self._point(self.cuda, "capture")
                self.cuda.stuck = False
                self.cuda.end_capture()
        self._stream.work.append(lambda: self._session.run_with_iobinding(binding.binding))

    def release_captured_graph(self, number):
        del self.captured[threading.get_ident(), number]

    @staticmethod
    def _point(cuda, name):
        try:
            cuda.point(name)
        except FakeCudaError as error:
            raise RuntimeError(f"CUDA failure: {error}") from None


class FakeBinding:
    def __init__(self, binding):
        self.binding = binding
        self.bind_cpu_input = binding.bind_cpu_input

    def bind_input(self, name, device, number, dtype, shape, pointer):
        assert device == "cuda" and pointer % ALIGNMENT == 0, f"{name} lies at {pointer:#x}"
        self.binding.bind_input(name, "cpu", number, dtype, shape, pointer)

    def bind_output(self, name, device, number, dtype, shape, pointer):
        assert device == "cuda" and pointer % ALIGNMENT == 0, f"{name} lies at {pointer:#x}"
        self.binding.bind_output(name, "cpu", number, dtype, shape, pointer)
