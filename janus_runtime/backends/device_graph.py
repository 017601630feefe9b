"""What the engines of all backends with a device have in common."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..bundle.manifest import Graph
from ..decoding.device import Device, DeviceArray
from ..decoding.engine import Array, check_names, check_tensors
from ..decoding.kv_cache import upload_new
from ..decoding.stop import RunStop


class DeviceGraph:
    """An engine that takes arrays of the host by way of the device. `enqueue` is a backend's own; see `DeviceEngine`. Its runs are
    short: none ends early."""

    def __init__(self, name: str, spec: Graph, device: Device) -> None:
        self.name, self.spec, self.device = name, spec, device

    def enqueue(self, tensors: Mapping[str, DeviceArray]) -> None:
        raise NotImplementedError

    def run(self, inputs: Mapping[str, Array], stop: RunStop | None = None) -> dict[str, Array]:
        sizes: dict[str, int] = {}
        check_names(self.name, "inputs", inputs, self.spec.inputs)
        check_tensors(self.name, self.spec.inputs, inputs, sizes)
        with self.device.lock:
            tensors = {name: upload_new(self.device, array) for name, array in inputs.items()}
            outputs: dict[str, Any] = {
                name: self.device.empty(tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape), spec.dtype)
                for name, spec in self.spec.outputs.items()
            }
            self.enqueue({**tensors, **outputs})
            results = {name: np.ascontiguousarray(self.device.download(array)) for name, array in outputs.items()}
            # Memory is given back in the order of work, too, which the lock is for.
            del tensors, outputs
            return results
