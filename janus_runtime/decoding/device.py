"""What a device is to the loop: memory, kernels, an order of work and replays of it. `cuda_device.py` is one, tests have another in NumPy.

Work is queued in order and done later; nothing here waits but `download` and `Event.wait`. A device array is known by its
shape and dtype, and can be sliced along its first axis and reshaped: views of one piece of memory.
Letters: R rows of the decoder, n drawn ids a step (R / 2 under guidance), V ids, H heads, S new tokens, P cache length, d head size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.interface import DType, GraphKind
from ..bundle.manifest import Graph

# What a step of the loop runs, over and over at the same addresses: worth a captured graph.
STEP_GRAPHS: frozenset[GraphKind] = frozenset(("language_model", "text_head", "text_draw", "image_head"))


class DeviceArray(Protocol):
    """One contiguous piece of the device's memory. A NumPy array is one, too."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...
    def __getitem__(self, index: Any) -> Any: ...
    def reshape(self, *shape: Any) -> Any: ...


class Event(Protocol):
    def wait(self) -> None:
        """Returns when all that was queued before the event is done. Raises BackendError if it failed."""


class Replay(Protocol):
    def launch(self) -> None:
        """Queues the recorded work once more."""

    def close(self) -> None:
        """Frees what was recorded; work that is queued is still done."""


class Kernels(Protocol):
    """What the loop needs beside graphs. Each queues one kernel; `testing/numpy_device.py` says the same in NumPy."""

    def gumbel(self, noise: DeviceArray, seeds: DeviceArray, step: DeviceArray, sampling: DeviceArray) -> None:
        """noise fp32 [n, V] = `noise.gumbel(seeds[i], step[i])`, or 0 where greedy. seeds uint64 [n], step int32 [n].

        Each row of `sampling` float64 [n, 3] is greedy (0 or 1), top_k (0 keeps all), top_p (1 keeps all).
        """

    def check(self, logits: DeviceArray, active: DeviceArray, step: DeviceArray, bad: DeviceArray) -> None:
        """bad int32 [R], where 0, becomes step + 1 of the row's picture, step int32 [n], where logits fp32 [R, V] of an active
        int32 [R] row hold NaN or Inf. R / n rows in turn belong to a picture."""

    def keep(
        self, noise: DeviceArray, logits: DeviceArray, cfg_weight: DeviceArray, temperature: DeviceArray, sampling: DeviceArray
    ) -> None:
        """noise [n, V] = -inf where `sampler.keep_top_k`, then `keep_top_p`, rule an id out of the scores / temperature fp32 [n].

        Scores are guided (`guidance.Pairs`, cfg_weight fp32 [n]) where there are R = 2n rows of logits [R, V], else the logits.
        """

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
        """ids int32 [n] = argmax of `guidance.Pairs` over logits fp32 [2n, V] / temperature fp32 [n] + noise fp32 [n, V], of equal ones the
        lowest; both rows of a picture in embeds f [2n, 1, D] = its id's row of table f [V, D]. cfg_weight fp32 [n]."""

    def record(self, ids: DeviceArray, log: DeviceArray, step: DeviceArray, bad: DeviceArray, host_bad: DeviceArray) -> None:
        """log int32 [N, n] at row step[i] of column i = ids int32 [n], then step int32 [n] += 1; host_bad int32 [R] = bad int32 [R]."""

    def write_cache(self, cache: DeviceArray, new: DeviceArray, starts: DeviceArray, counts: DeviceArray, slot: int) -> None:
        """cache [tensors, R, H, P, d] takes the first counts[r] of new [tensors, k or more, H, S, d] at places starts[r] of row slot + r.

        starts, counts int32 [k]. Places beyond P are left alone.
        """

    def clear_cache(self, cache: DeviceArray, starts: DeviceArray) -> None:
        """cache [tensors, R, H, P, d] = 0 in each row r from place starts[r] on, starts int32 [R]."""

    def copy_2d(self, source: DeviceArray, target: DeviceArray, count: int, nbytes: int, source_stride: int, target_stride: int) -> None:
        """`count` pieces of `nbytes` each, which lie `*_stride` bytes apart. All are multiples of 16.

        Pieces may lie beyond `source` and `target` themselves, but not out of the memory that these are views of.
        """

    def advance_slice(self, position_ids: DeviceArray, past_mask: DeviceArray, active: DeviceArray) -> None:
        """For active rows: past_mask f [R, 1, 1, P] at the row's position = 0, then position_ids int32 [R, 1] += 1."""

    def advance_inplace(self, position_ids: DeviceArray, write_indices: DeviceArray, attn_mask: DeviceArray, active: DeviceArray) -> None:
        """For active rows: position_ids int64 [R, 1] and write_indices int64 [R] += 1, then attn_mask bool [R, 1, 1, P] there = 1."""

    def advance_gqa(self, seqlens_k: DeviceArray, active: DeviceArray) -> None:
        """seqlens_k int32 [R] += active int32 [R]."""


class Device(Protocol):
    """A device and one order of work on it. For one thread at a time: `lock` is held while work is queued."""

    lock: Any
    kernels: Kernels
    reclaim: Callable[[], None]
    """Frees memory that is kept for later; called once before memory that runs out is an error. The loops of a model set it."""

    def empty(self, shape: tuple[int, ...], dtype: DType | str) -> DeviceArray:
        """Memory that is freed with the last view of it. Raises OutOfMemory, which says how much was asked for and how much is free,
        where `reclaim` did not help."""

    def clear(self, target: DeviceArray) -> None:
        """Queues zeros."""

    def pinned(self, shape: tuple[int, ...], dtype: DType | str) -> tuple[DeviceArray, NDArray[Any]]:
        """Zeroed memory of the host that the device writes: as the device sees it, as NumPy does."""

    def upload(self, values: NDArray[Any], target: DeviceArray) -> None:
        """Queues a copy of `values`, of the target's shape and dtype, which may change once this returns."""

    def download(self, source: DeviceArray) -> NDArray[Any]:
        """Waits for all work, then copies."""

    def event(self) -> Event:
        """Queues an event."""

    def capture(self, work: Callable[[], None]) -> Replay:
        """Records what `work` queues, without doing it."""


@dataclass(frozen=True)
class DecoderLimits:
    """What a backend's decoder can do: row counts and cache lengths in rising order, and how many tokens it takes at once.

    `replay` turns work that was done once into something to queue again. `run` does work on the thread that queues it, for a caller
    who holds the device's lock.
    """

    device: Device
    rows: tuple[int, ...] | None
    lengths: tuple[int, ...]
    chunk: int
    replay: Callable[[Callable[[], None]], Replay]
    run: Callable[[Callable[[], Any]], Any] = lambda work: work()  # noqa: E731


class DeviceEngine(Protocol):
    """A graph that runs on a device's memory."""

    name: str
    spec: Graph

    def enqueue(self, tensors: Mapping[str, DeviceArray]) -> None:
        """Queues one run over all of its inputs and outputs. An output may share memory with an input where the graph says so."""
