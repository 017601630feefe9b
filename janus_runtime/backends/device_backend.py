"""What the backends that own a device have in common."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle.manifest import Graph
from ..decoding.device import Device, DeviceArray
from ..decoding.device_loop import LoopEngines, Loops, Steps
from ..decoding.device_session import DeviceSession
from ..decoding.engine import Array, Kind, check_names, check_tensors
from ..decoding.kv_cache import uploaded

if TYPE_CHECKING:
    from ..decoding.engines import Engines


class DeviceGraph:
    """An engine that takes arrays of the host by way of the device. `enqueue` is a backend's own; see `DeviceEngine`."""

    def __init__(self, name: str, spec: Graph, device: Device) -> None:
        self.name, self.spec, self.device = name, spec, device

    def enqueue(self, tensors: Mapping[str, DeviceArray]) -> None:
        raise NotImplementedError

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        sizes: dict[str, int] = {}
        check_names(self.name, "inputs", inputs, self.spec.inputs)
        check_tensors(self.name, self.spec.inputs, inputs, sizes)
        with self.device.lock:
            tensors = {name: uploaded(self.device, array) for name, array in inputs.items()}
            outputs: dict[str, Any] = {
                name: self.device.empty(tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape), spec.dtype)
                for name, spec in self.spec.outputs.items()
            }
            self.enqueue({**tensors, **outputs})
            results = {name: np.ascontiguousarray(self.device.download(array)) for name, array in outputs.items()}
            # Memory is given back in the order of work, too, which the lock is for.
            del tensors, outputs
            return results


class DeviceBackend:
    """Sessions whose steps are work of a device. A subclass brings `load` and `steps`."""

    name: str
    description: str
    flavour: str
    steps: Steps

    def __init__(self) -> None:
        self._loops = Loops()

    def session_graphs(self, kind: Kind) -> tuple[str, ...]:
        return f"{kind}_embed", f"{kind}_head", f"{kind}_draw"

    def session(self, engines: "Engines", kind: Kind, rows: int, max_length: int, grows: bool) -> DeviceSession:
        """Always grows, through the lengths of its steps."""
        embed, head, draw, language_model = (*map(engines.__getitem__, self.session_graphs(kind)), engines.language_model)
        parts: list[Any] = [embed, language_model, head, draw]
        return DeviceSession(self.steps, LoopEngines(*parts), self._loops, rows, max_length)

    def close(self) -> None:
        """Waits for what is queued: it uses memory of engines, which are closed next."""
        device = self.steps.device
        with device.lock:
            try:
                device.event().wait()
            finally:
                self._loops.close()
