"""The KV cache of a decoder on a device: one class a flavour of `language_model`.

Each owns keys and values of R rows and P places and the graph's own inputs beside them, all in device memory, so that a step
needs nothing from the host. Letters: R rows, k rows of one call, S new tokens, P places, H heads, d head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.interface import MASKED, Flavour
from ..bundle.manifest import Graph
from .device import Device, DeviceArray

# TensorRT refuses other addresses.
_ALIGNMENT = 256

Ids = NDArray[np.int32]
Tensors = dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """The tensors of one call over several new tokens, and what it gives of the cache where the caller must write that."""

    tensors: Tensors
    new: DeviceArray | None = None


class Cache:
    """Keys and values [tensors, R, H, P, d] in `memory`, and a step's tensors over them by the graph's names.

    `load` sets every row's length; `chunk` and `store` take new tokens in; `advance` follows a step.
    """

    def __init__(self, device: Device, graph: Graph, memory: DeviceArray, rows: int, length: int) -> None:
        self.device = device
        self.length = length
        assert graph.cache is not None
        self.names = graph.cache
        self.dtype = np.dtype(graph.cache.dtype)
        _, heads, _, head_size = graph.inputs[graph.cache.inputs[0]].shape
        self._heads, self._head_size = int(heads), int(head_size)
        shape = (len(self.names.inputs), rows, self._heads, length, self._head_size)
        self.tensors: Any = memory.reshape(-1)[: int(np.prod(shape))].reshape(shape)

    @classmethod
    def count(cls, graph: Graph, rows: int, length: int) -> int:
        """Numbers in the cache's memory."""
        assert graph.cache is not None
        _, heads, _, head_size = graph.inputs[graph.cache.inputs[0]].shape
        return len(graph.cache.inputs) * rows * int(heads) * length * int(head_size)

    def bind(self, names: Sequence[str], tensors: DeviceArray, rows: slice) -> Tensors:
        """[tensors, R, …] -> [k, …] of these rows under each of the names."""
        return {name: tensors[index][rows] for index, name in enumerate(names)}

    def step(self) -> Tensors:
        """A step's tensors, always the same memory."""
        raise NotImplementedError

    def load(self, lengths: Ids) -> None:
        """The next step of row r writes place lengths[r]."""
        raise NotImplementedError

    def chunk(self, rows: slice, lengths: Ids, counts: Ids, tokens: int) -> Chunk:
        """A call that takes S `tokens`, of which counts [k] are real, into rows that hold lengths [k]."""
        raise NotImplementedError

    def store(self, chunk: Chunk, rows: slice, lengths: Ids, counts: Ids) -> None:
        """After that call: its tokens are in the cache."""

    def advance(self, active: DeviceArray) -> None:
        """After a step: active int32 [R] rows go on by a place."""
        raise NotImplementedError

    def copy(self, source: int, target: int) -> None:
        """Row `target` becomes a copy of row `source`."""
        _, rows, *_ = self.tensors.shape
        row = self.tensors.nbytes // len(self.names.inputs) // rows
        self.device.kernels.copy_2d(self.tensors[0][source], self.tensors[0][target], len(self.names.inputs), row, rows * row, rows * row)

    def forget(self, lengths: Ids) -> None:
        """Zeros in the places of each row from lengths [R] on."""
        self.device.kernels.clear_cache(self.tensors, self._upload(lengths))

    def grow(self, source: "Cache") -> None:
        """Takes over what a shorter cache in other memory holds."""
        place, pieces = self._head_size * self.dtype.itemsize, int(np.prod(self.tensors.shape[:3]))
        self.device.kernels.copy_2d(source.tensors, self.tensors, pieces, source.length * place, source.length * place, self.length * place)

    def _new_tokens(self, rows: int, tokens: int) -> DeviceArray:
        """Memory for keys and values of new tokens [tensors, rows or a few more, H, S, d], each tensor at an aligned address."""
        row_bytes = self._heads * tokens * self._head_size * self.dtype.itemsize
        aligned = next(each for each in count(rows) if each * row_bytes % _ALIGNMENT == 0)
        return self.device.empty((len(self.names.inputs), aligned, self._heads, tokens, self._head_size), self.dtype.name)

    def _upload(self, values: NDArray[Any]) -> DeviceArray:
        return upload_new(self.device, values)


class SliceCache(Cache):
    """The graph reads the cache and gives the new keys and values, which a kernel writes into it."""

    def __init__(self, device: Device, graph: Graph, memory: DeviceArray, rows: int, length: int) -> None:
        super().__init__(device, graph, memory, rows, length)
        self._position_ids = device.empty((rows, 1), "int32")
        self._past_mask = device.empty((rows, 1, 1, length), self.dtype.name)
        self._new_mask = self._upload(np.zeros((1, 1, 1, 1), self.dtype))
        self._rows = slice(0, rows)
        self._new = self._new_tokens(rows, 1)

    def step(self) -> Tensors:
        own = {"position_ids": self._position_ids, "past_mask": self._past_mask, "new_mask": self._new_mask}
        past, new = self.bind(self.names.inputs, self.tensors, self._rows), self.bind(self.names.outputs, self._new, self._rows)
        return {**own, **past, **new}

    def load(self, lengths: Ids) -> None:
        self.device.upload(lengths[:, None], self._position_ids)
        self.device.upload(self._mask(lengths), self._past_mask)

    def chunk(self, rows: slice, lengths: Ids, counts: Ids, tokens: int) -> Chunk:
        causal = np.where(np.tri(tokens, dtype=bool), 0, MASKED).astype(self.dtype)[None, None]
        own = {
            "position_ids": self._upload(lengths[:, None] + np.arange(tokens, dtype=np.int32)),
            "past_mask": self._upload(self._mask(lengths)),
            "new_mask": self._upload(causal),
        }
        new, own_rows = self._new_tokens(len(lengths), tokens), slice(0, len(lengths))
        return Chunk({**own, **self.bind(self.names.inputs, self.tensors, rows), **self.bind(self.names.outputs, new, own_rows)}, new)

    def store(self, chunk: Chunk, rows: slice, lengths: Ids, counts: Ids) -> None:
        assert chunk.new is not None
        self.device.kernels.write_cache(self.tensors, chunk.new, self._upload(lengths), self._upload(counts), rows.start)

    def advance(self, active: DeviceArray) -> None:
        kernels = self.device.kernels
        kernels.write_cache(self.tensors, self._new, self._position_ids.reshape(-1), active, 0)
        kernels.advance_slice(self._position_ids, self._past_mask, active)

    def _mask(self, lengths: Ids) -> NDArray[Any]:
        held = np.arange(self.length) < lengths[:, None]
        return np.where(held, 0, MASKED).astype(self.dtype)[:, None, None]


class InPlaceCache(Cache):
    """The graph writes the cache where it lies; a mask says what each new token sees, itself included."""

    def __init__(self, device: Device, graph: Graph, memory: DeviceArray, rows: int, length: int) -> None:
        super().__init__(device, graph, memory, rows, length)
        self._position_ids = device.empty((rows, 1), "int64")
        self._write_indices = device.empty((rows,), "int64")
        self._attn_mask = device.empty((rows, 1, 1, length), "bool")

    def step(self) -> Tensors:
        own = {"position_ids": self._position_ids, "write_indices": self._write_indices, "attn_mask": self._attn_mask}
        rows = slice(None)
        return {**own, **self.bind(self.names.inputs, self.tensors, rows), **self.bind(self.names.outputs, self.tensors, rows)}

    def load(self, lengths: Ids) -> None:
        positions = lengths[:, None].astype(np.int64)
        for values, target in zip(self._own(positions), (self._position_ids, self._write_indices, self._attn_mask), strict=True):
            self.device.upload(values, target)

    def chunk(self, rows: slice, lengths: Ids, counts: Ids, tokens: int) -> Chunk:
        own = self._own(lengths[:, None] + np.arange(tokens, dtype=np.int64))
        named = dict(zip(("position_ids", "write_indices", "attn_mask"), map(self._upload, own), strict=True))
        return Chunk({**named, **self.bind(self.names.inputs, self.tensors, rows), **self.bind(self.names.outputs, self.tensors, rows)})

    def advance(self, active: DeviceArray) -> None:
        self.device.kernels.advance_inplace(self._position_ids, self._write_indices, self._attn_mask, active)

    def _own(self, positions: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """positions int64 [k, S] -> themselves, where to write [k], and what each may see [k, 1, S, P]."""
        return positions, positions[:, 0].copy(), (np.arange(self.length) <= positions[..., None])[:, None]


class GroupQueryCache(Cache):
    """ONNX Runtime's operator writes the cache where it lies, and takes one length a row."""

    def __init__(self, device: Device, graph: Graph, memory: DeviceArray, rows: int, length: int) -> None:
        super().__init__(device, graph, memory, rows, length)
        self._seqlens_k = device.empty((rows,), "int32")
        # The operator reads it on the host. A replayed graph keeps it, so it says how long the cache may ever be.
        self._total = np.array(length, np.int32)

    def step(self) -> Tensors:
        own = {"seqlens_k": self._seqlens_k, "total_sequence_length": self._total}
        rows = slice(None)
        return {**own, **self.bind(self.names.inputs, self.tensors, rows), **self.bind(self.names.outputs, self.tensors, rows)}

    def load(self, lengths: Ids) -> None:
        self.device.upload(lengths, self._seqlens_k)

    def chunk(self, rows: slice, lengths: Ids, counts: Ids, tokens: int) -> Chunk:
        after = lengths + counts
        own = {"seqlens_k": self._upload(after - 1), "total_sequence_length": np.array(after.max(), np.int32)}
        return Chunk({**own, **self.bind(self.names.inputs, self.tensors, rows), **self.bind(self.names.outputs, self.tensors, rows)})

    def advance(self, active: DeviceArray) -> None:
        self.device.kernels.advance_gqa(self._seqlens_k, active)


CACHES: dict[Flavour, type[Cache]] = {"slice": SliceCache, "inplace": InPlaceCache, "gqa": GroupQueryCache, "gqa_cuda": GroupQueryCache}


def upload_new(device: Device, values: NDArray[Any]) -> DeviceArray:
    """`values` in new memory of the device."""
    target = device.empty(values.shape, values.dtype.name)
    device.upload(np.ascontiguousarray(values), target)
    return target


def smallest_holding(options: Sequence[int], needed: int) -> int | None:
    """The smallest of the options, in rising order, that holds what is needed."""
    return next((option for option in options if option >= needed), None)
