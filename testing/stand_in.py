"""A backend whose device is NumPy and whose graphs run on ONNX Runtime's CPU provider: the device loop without a GPU."""

from janus_runtime.backends.device_graph import DeviceGraph
from janus_runtime.backends.ort_cpu import OrtEngine
from janus_runtime.decoding.capture import capture_or_repeat
from janus_runtime.decoding.device import DecoderLimits
from testing.numpy_device import ALIGNMENT, NumpyDevice


def _locked(method):
    def call(self, *arguments):
        assert self.lock._is_owned(), f"{method.__name__} of the device without its lock"
        return method(self, *arguments)

    return call


class LockedDevice(NumpyDevice):
    """Refuses work, copies and memory to whoever does not hold the lock."""

    queue, empty, pinned, download = map(_locked, (NumpyDevice.queue, NumpyDevice.empty, NumpyDevice.pinned, NumpyDevice.download))


class StandIn:
    name = "stand-in"
    description = "a device of NumPy"

    def __init__(self, flavour="slice", rows=(2, 4, 8), lengths=(32, 48, 96, 160, 480), chunk=16):
        self.flavour = flavour
        self.device = LockedDevice()
        # ONNX Runtime fixes nothing, as the plans of TensorRT do: limits are checked by StandInGraph.
        self.limits = DecoderLimits(self.device, rows, lengths, chunk, lambda work: capture_or_repeat(self.device, work, "the stand-in"))
        self.graphs = {}

    def load(self, bundle, graph):
        with self.device.lock:
            self.graphs[graph] = StandInGraph(bundle, graph, self)
            return self.graphs[graph]

    def advice(self, bundle):
        return None

    def close(self):
        pass


class StandInGraph(DeviceGraph):
    """`calls` counts runs; `after(tensors)` may spoil what one gave."""

    def __init__(self, bundle, graph, backend):
        super().__init__(graph, bundle.graph(graph), backend.device)
        self.engine = OrtEngine(bundle, graph)
        self.limits = backend.limits
        self.calls = 0
        self.after = lambda tensors: None

    def enqueue(self, tensors):
        assert tensors.keys() == self.spec.inputs.keys() | self.spec.outputs.keys()
        inputs = {name: tensors[name] for name in self.spec.inputs}
        outputs = {name: tensors[name] for name in self.spec.outputs}
        for name, tensor in tensors.items():
            assert tensor.ndim == 0 or tensor.ctypes.data % ALIGNMENT == 0, f"{self.name} got an address for {name} that is not aligned"
        if self.spec.kind == "language_model":
            rows, tokens = inputs["embeds"].shape[:2]
            assert tokens <= self.limits.chunk or not self.spec.cache.ragged_append
            assert inputs[self.spec.cache.inputs[0]].shape[2] in self.limits.lengths
            assert tokens > 1 or self.limits.rows is None or rows in (1, *self.limits.rows)

        def work():
            self.calls += 1
            self.engine.bind(inputs, outputs).run({})
            self.after(tensors)

        self.device.queue(work)

    def close(self):
        self.engine.close()
