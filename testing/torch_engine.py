"""A backend whose graphs are the exporter's own torch modules, in eager mode, over the memory of a device.

It needs neither ONNX Runtime nor TensorRT, so that the loop, the kernels and the capture of a device can be tried by themselves: on a GPU
over `CudaDevice`, which captures what torch queues on its stream, and on a CPU over `NumpyDevice`. One flavour: `slice`.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from janus_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from janus_export.graphs import GraphSpec, graphs_of
from janus_export.modules.attention import Traced
from janus_export.modules.layers import dtype_name, recipes_of
from janus_runtime.backends.device_graph import DeviceGraph
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.interface import Flavour, Interface
from janus_runtime.decoding.capture import capture_or_repeat
from janus_runtime.decoding.device import DecoderLimits, Device, DeviceArray


class TorchBackend:
    """Of a checkpoint folder and of a bundle of it, which gives names and shapes. The dtype is the bundle's."""

    name = "torch"
    flavour: Flavour = "slice"

    def __init__(self, checkpoint: Path, device: Device, lengths: tuple[int, ...], rows: tuple[int, ...] | None = None) -> None:
        self.device = device
        self.description = f"torch {torch.__version__} in eager mode"
        self.limits = DecoderLimits(device, rows, lengths, lengths[0], lambda work: capture_or_repeat(device, work, "torch"))
        self._checkpoint = open_checkpoint(str(checkpoint))

    def load(self, bundle: Bundle, graph: str) -> "TorchGraph":
        with self.device.lock:
            return TorchGraph(bundle, graph, self.device, self._checkpoint)

    def advice(self, bundle: Bundle) -> str | None:
        return None

    def close(self) -> None:
        pass


class TorchGraph(DeviceGraph):
    """One module. On a GPU its memory comes from a pool of its own: what a captured graph uses is nobody else's afterwards."""

    def __init__(self, bundle: Bundle, graph: str, device: Device, checkpoint: Checkpoint) -> None:
        super().__init__(graph, bundle.graph(graph), device)
        self._cuda = hasattr(device, "stream_handle")
        (found,) = (spec for spec in graphs_of(checkpoint.config) if spec.name == graph)
        self._graph: GraphSpec = found
        self._interface = Interface(self.spec.inputs, self.spec.outputs, self.spec.cache)
        self._module = _load(found, checkpoint, getattr(torch, self.spec.format.activations), "cuda" if self._cuda else "cpu")
        self._pool = torch.cuda.MemPool() if self._cuda else None

    @torch.inference_mode()
    def _run(self, tensors: Mapping[str, DeviceArray]) -> None:
        found = {name: _as_torch(array) for name, array in tensors.items()}
        with self._stream():
            inputs = {name: found[name] for name in self.spec.inputs}
            outputs = self._module(*self._graph.arrange(inputs, self._interface))
            for name, value in zip(self.spec.outputs, outputs if isinstance(outputs, list | tuple) else (outputs,), strict=True):
                found[name].copy_(value)

    def enqueue(self, tensors: Mapping[str, DeviceArray]) -> None:
        if self._cuda:
            self._run(tensors)
        else:
            queue: Callable[[Callable[[], None]], None] = self.device.queue  # type: ignore[attr-defined]  # of NumpyDevice
            queue(lambda: self._run(tensors))

    def close(self) -> None:
        self._module = nn.Module()

    def _stream(self) -> AbstractContextManager[Any]:
        """Torch's current stream and allocator are the device's: while that captures, its builder's."""
        if not self._cuda:
            return nullcontext()
        stack = ExitStack()
        stack.enter_context(torch.cuda.stream(torch.cuda.ExternalStream(self.device.stream_handle)))  # type: ignore[attr-defined]
        stack.enter_context(torch.cuda.use_mem_pool(self._pool))
        return stack


def _load(spec: GraphSpec, checkpoint: Checkpoint, dtype: torch.dtype, device: str) -> nn.Module:
    """The module with its weights, one tensor at a time."""
    with torch.device("meta"):
        module = spec.build(checkpoint.config, dtype).eval()
    for path, (recipe, stored) in recipes_of(module).items():
        made = recipe.make(checkpoint.tensors, np.dtype(dtype_name(stored)))
        owner, _, name = path.rpartition(".")
        setattr(module.get_submodule(owner), name, nn.Parameter(torch.from_numpy(made).to(device), requires_grad=False))
    for part in module.modules():
        if isinstance(part, Traced):
            # In an export it is a word that the trace of `attend` takes the place of.
            part.forward = lambda qkv, key, value, prepared, attend=part.attend: attend(qkv, key, value, *prepared)  # type: ignore[method-assign]
    return module


def _as_torch(array: DeviceArray) -> torch.Tensor:
    """The same memory."""
    if isinstance(array, np.ndarray):
        return torch.from_numpy(array)
    interface = {"data": (array.ptr, False), "shape": array.shape, "typestr": array.dtype.str, "version": 3}  # type: ignore[attr-defined]
    return torch.as_tensor(type("CudaView", (), {"__cuda_array_interface__": interface})(), device="cuda")
