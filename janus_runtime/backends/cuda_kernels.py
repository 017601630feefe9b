"""`device.Kernels` on a GPU: which grid, which block, which parameters. The kernels themselves are in `kernels.cu`.

Nothing here touches CUDA: `launch` is handed in, so that tests run the same launches on a CPU.
Letters: R rows of the decoder, n drawn ids a step, V ids, H heads, S new tokens, P cache length, d head size.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..decoding.device import DeviceArray
from ..errors import BackendError

SOURCE = Path(__file__).with_name("kernels.cu")

# The parameters of each kernel as `kernels.cu` declares them, without const. Arrays of `void` or `uint4` may be of any dtype.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "gumbel": ("float32*", "uint64*", "int32*", "float64*", "int32"),
    "check": ("float32*", "int32*", "int32*", "int32*", "int32", "int32"),
    "keep": ("float32*", "float32*", "float32*", "float32*", "float64*", "int32", "int32"),
    "draw": ("float32*", "float32*", "float32*", "float32*", "uint4*", "int32*", "uint4*", "int32", "int32"),
    "record": ("int32*", "int32*", "int32*", "int32*", "int32*", "int32", "int32", "int32"),
    "write_cache": ("uint4*", "uint4*", "int32*", "int32*", *["int32"] * 8),
    "clear_cache": ("uint4*", "int32*", "int32", "int32", "int32", "int32"),
    "copy_2d": ("uint4*", "uint4*", "int64", "int64", "int64", "int64"),
    "advance_slice": ("int32*", "void*", "int32*", "int32", "int32", "int32"),
    "advance_inplace": ("int64*", "int64*", "bool*", "int32*", "int32", "int32"),
    "advance_gqa": ("int32*", "int32*", "int32"),
}

_THREADS = 256
# `keep` and `draw` walk a row with one block: as many threads as there can be.
_ROW_THREADS = 1024
_VECTOR = 16
_MAX_GRID_Y = 65535


# (kernel, grid, block, arguments): an address is an int, a number a NumPy scalar of the parameter's type.
Launch = Callable[[str, tuple[int, int], tuple[int, int], list[Any]], None]


class CudaKernels:
    """Each method queues one kernel. Raises BackendError if an array has not the dtype or the size that the kernel reads."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def gumbel(self, noise: DeviceArray, seeds: DeviceArray, step: DeviceArray, sampling: DeviceArray) -> None:
        rows, num_ids = noise.shape
        _expect("gumbel", seeds=(seeds, (rows,)), step=(step, (rows,)), sampling=(sampling, (rows, 3)))
        self._run("gumbel", (_blocks(num_ids, 4 * _THREADS), rows), (_THREADS, 1), noise, seeds, step, sampling, num_ids)

    def check(self, logits: DeviceArray, active: DeviceArray, step: DeviceArray, bad: DeviceArray) -> None:
        rows, num_ids = logits.shape
        pictures = step.shape[0]
        if not pictures or rows % pictures:
            raise BackendError(f"check got {rows} rows of {pictures} pictures, expected as many for each")
        _expect("check", active=(active, (rows,)), step=(step, (pictures,)), bad=(bad, (rows,)))
        arrays = logits, active, step, bad
        self._run("check", (_blocks(num_ids, 4 * _THREADS), rows), (_THREADS, 1), *arrays, num_ids, rows // pictures)

    def keep(
        self, noise: DeviceArray, logits: DeviceArray, cfg_weight: DeviceArray, temperature: DeviceArray, sampling: DeviceArray
    ) -> None:
        rows, num_ids = noise.shape
        guided = logits.shape == (2 * rows, num_ids)
        _expect(
            "keep",
            logits=(logits, (2 * rows if guided else rows, num_ids)),
            cfg_weight=(cfg_weight, (rows,)),
            temperature=(temperature, (rows,)),
            sampling=(sampling, (rows, 3)),
        )
        arrays = noise, logits, cfg_weight, temperature, sampling
        self._run("keep", (rows, 1), (_ROW_THREADS, 1), *arrays, num_ids, int(guided))

    def draw(
        self,
        logits: DeviceArray,
        noise: DeviceArray,
        cfg_weight: DeviceArray,
        temperature: DeviceArray,
        table: DeviceArray,
        ids: DeviceArray,
        embeds: DeviceArray,
    ) -> None:
        (pictures, num_ids), (*_, width) = noise.shape, table.shape
        _expect(
            "draw",
            logits=(logits, (2 * pictures, num_ids)),
            cfg_weight=(cfg_weight, (pictures,)),
            temperature=(temperature, (pictures,)),
            table=(table, (num_ids, width)),
            ids=(ids, (pictures,)),
            embeds=(embeds, (2 * pictures, 1, width)),
        )
        if table.dtype != embeds.dtype:
            raise BackendError(f"draw got a table of {table.dtype}, expected {embeds.dtype} as embeds are")
        vectors = _vectors("draw", width * table.dtype.itemsize, address(table), address(embeds))
        arrays = logits, noise, cfg_weight, temperature, table, ids, embeds
        self._run("draw", (pictures, 1), (_ROW_THREADS, 1), *arrays, num_ids, vectors)

    def record(self, ids: DeviceArray, log: DeviceArray, step: DeviceArray, bad: DeviceArray, host_bad: DeviceArray) -> None:
        (num_steps, pictures), (rows,) = log.shape, bad.shape
        _expect("record", ids=(ids, (pictures,)), step=(step, (pictures,)), host_bad=(host_bad, (rows,)))
        grid = _blocks(max(pictures, rows), _THREADS), 1
        self._run("record", grid, (_THREADS, 1), ids, log, step, bad, host_bad, pictures, num_steps, rows)

    def write_cache(self, cache: DeviceArray, new: DeviceArray, starts: DeviceArray, counts: DeviceArray, slot: int) -> None:
        tensors, rows, heads, length, size = cache.shape
        (new_rows,), stride, tokens = starts.shape, new.shape[1], new.shape[3]
        _expect("write_cache", new=(new, (tensors, stride, heads, tokens, size)), counts=(counts, (new_rows,)))
        if cache.dtype != new.dtype or not 0 <= slot <= rows - new_rows or new_rows > stride:
            raise BackendError(
                f"write_cache got {new_rows} of {stride} rows of {new.dtype} at row {slot}, "
                f"expected {rows} rows of {cache.dtype} to hold them"
            )
        vectors = _vectors("write_cache", size * cache.dtype.itemsize, address(cache), address(new))
        grid = _blocks(heads * tokens * vectors, _THREADS), tensors * new_rows
        sizes = slot, rows, new_rows, stride, heads, length, tokens, vectors
        self._run("write_cache", grid, (_THREADS, 1), cache, new, starts, counts, *sizes)

    def clear_cache(self, cache: DeviceArray, starts: DeviceArray) -> None:
        tensors, rows, heads, length, size = cache.shape
        _expect("clear_cache", starts=(starts, (rows,)))
        vectors = _vectors("clear_cache", size * cache.dtype.itemsize, address(cache))
        grid = _blocks(heads * length * vectors, _THREADS), tensors * rows
        self._run("clear_cache", grid, (_THREADS, 1), cache, starts, rows, heads, length, vectors)

    def copy_2d(self, source: DeviceArray, target: DeviceArray, count: int, nbytes: int, source_stride: int, target_stride: int) -> None:
        # Pieces may reach beyond a view, over the other rows of its memory, but not out of that.
        for name, array, stride in (("source", source, source_stride), ("target", target, target_stride)):
            if count and (count - 1) * stride + nbytes > room(array):
                raise BackendError(
                    f"copy_2d got {count} pieces of {nbytes} bytes, {stride} apart, "
                    f"expected them in the {room(array)} bytes from the {name} on"
                )
        _vectors("copy_2d", address(source), address(target))
        size, *strides = (_vectors("copy_2d", each) for each in (nbytes, source_stride, target_stride))
        block = 32, _THREADS // 32
        # Eight vectors a thread.
        grid = _blocks(count, block[1]), min(_blocks(size, 8 * block[0]), _MAX_GRID_Y)
        self._run("copy_2d", grid, block, source, target, count, size, *strides)

    def advance_slice(self, position_ids: DeviceArray, past_mask: DeviceArray, active: DeviceArray) -> None:
        rows, length, itemsize = active.shape[0], past_mask.shape[-1], past_mask.dtype.itemsize
        _expect("advance_slice", position_ids=(position_ids, (rows, 1)), past_mask=(past_mask, (rows, 1, 1, length)))
        if itemsize not in (2, 4):
            raise BackendError(f"advance_slice got a past_mask of {past_mask.dtype}, expected numbers of 2 or 4 bytes")
        self._run("advance_slice", (_blocks(rows, _THREADS), 1), (_THREADS, 1), position_ids, past_mask, active, rows, length, itemsize)

    def advance_inplace(self, position_ids: DeviceArray, write_indices: DeviceArray, attn_mask: DeviceArray, active: DeviceArray) -> None:
        rows, length = active.shape[0], attn_mask.shape[-1]
        _expect(
            "advance_inplace",
            position_ids=(position_ids, (rows, 1)),
            write_indices=(write_indices, (rows,)),
            attn_mask=(attn_mask, (rows, 1, 1, length)),
        )
        arrays = position_ids, write_indices, attn_mask, active
        self._run("advance_inplace", (_blocks(rows, _THREADS), 1), (_THREADS, 1), *arrays, rows, length)

    def advance_gqa(self, seqlens_k: DeviceArray, active: DeviceArray) -> None:
        rows = active.shape[0]
        _expect("advance_gqa", seqlens_k=(seqlens_k, (rows,)))
        self._run("advance_gqa", (_blocks(rows, _THREADS), 1), (_THREADS, 1), seqlens_k, active, rows)

    def _run(self, kernel: str, grid: tuple[int, int], block: tuple[int, int], *values: Any) -> None:
        if 0 in grid:
            return
        if grid[1] > _MAX_GRID_Y:
            raise BackendError(f"{kernel} got {grid[1]} rows, expected at most {_MAX_GRID_Y}; use smaller batches")
        arguments = [_argument(kernel, kind, value) for kind, value in zip(PARAMETERS[kernel], values, strict=True)]
        self._launch(kernel, grid, block, arguments)


def address(array: Any) -> int:
    """Where a GPU's array lies."""
    return int(array.ptr)


def room(array: Any) -> int:
    """Bytes from there to the end of the memory that it is a view of."""
    return int(array.owner.handle) + int(array.owner.size) - address(array)


def _argument(kernel: str, kind: str, value: Any) -> Any:
    if not kind.endswith("*"):
        return np.dtype(kind).type(value)
    if kind not in ("void*", "uint4*") and value.dtype != np.dtype(kind[:-1]):
        raise BackendError(f"{kernel} got an array of {value.dtype}, expected {kind[:-1]}")
    return address(value)


def _expect(kernel: str, **arrays: tuple[DeviceArray, tuple[int, ...]]) -> None:
    for name, (array, shape) in arrays.items():
        if array.shape != shape:
            raise BackendError(f"{kernel} got {name} of shape {list(array.shape)}, expected {list(shape)}")


def _vectors(kernel: str, nbytes: int, *addresses: int) -> int:
    """How many vectors `nbytes` are."""
    for value in (nbytes, *addresses):
        if value % _VECTOR:
            raise BackendError(f"{kernel} got a size or an address of {value} bytes, expected a multiple of {_VECTOR}")
    return nbytes // _VECTOR


def _blocks(count: int, each: int) -> int:
    return -(-count // each)
