"""Loop: one step of a decoder as work that a device repeats by itself, over memory of its own.

A step is noise, draw, decoder, head: what was drawn goes back in without the host. Letters: R rows, D hidden size, V ids,
n drawn ids a step (R without guidance, else R / 2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

import numpy as np

from ..errors import BackendError
from ..sampling.draw import Draw
from ..sampling.guidance import Pairs
from ..sampling.sampler import Floats, Ids
from .device import DecoderLimits, Device, DeviceArray, DeviceEngine, Replay
from .engine import Engine
from .kv_cache import CACHES, Cache, upload_new

# Bounds the memory that embedding every id takes beside their table.
_EMBEDDED_AT_ONCE = 512


class GraphEngine(Engine, DeviceEngine, Protocol):
    """An engine that takes arrays of the host or of the device."""


@dataclass(frozen=True)
class LoopEngines:
    """`embed` is for ids that the host knows. `draw` draws ids of text and embeds them; it is None for pictures, whose ids a kernel draws
    and looks up in a table. One of text would take 419 MB in Janus-Pro-1B."""

    embed: GraphEngine
    language_model: GraphEngine
    head: GraphEngine
    draw: GraphEngine | None

    @property
    def sizes(self) -> tuple[int, int]:
        """V ids and D."""
        vocabulary, width = (spec.shape[-1] for spec in (self.head.spec.outputs["logits"], self.language_model.spec.inputs["embeds"]))
        assert isinstance(vocabulary, int) and isinstance(width, int)
        return vocabulary, width


class Loop:
    """R rows on a device, at fixed addresses, with caches of `lengths`. Used by one session after the other. Raises OutOfMemory.

    `table` is that of `embed_every_id` where pictures are drawn, else None.
    """

    def __init__(self, limits: DecoderLimits, engines: LoopEngines, rows: int, lengths: tuple[int, ...], table: DeviceArray | None) -> None:
        self.limits, self.engines, self.rows, self.lengths = limits, engines, rows, lengths
        graph, (vocabulary, width) = engines.language_model.spec, engines.sizes
        self._table, self.guided = table, table is not None
        n = rows // 2 if self.guided else rows
        device = limits.device
        dtype, empty = graph.inputs["embeds"].dtype, device.empty
        self.embeds, self.hidden = empty((rows, 1, width), dtype), empty((rows, width), dtype)
        self.places = upload_new(device, np.arange(rows, dtype=np.int32))
        self.logits, self.noise = empty((rows, vocabulary), "float32"), empty((n, vocabulary), "float32")
        self.ids, self.active = empty((n,), "int32"), empty((rows,), "int32")
        self.seeds, self.number, self.sampling = empty((n,), "uint64"), empty((n,), "int32"), empty((n, 3), "float64")
        self.cfg_weight, self.temperature, self.bad = empty((n,), "float32"), empty((n,), "float32"), empty((rows,), "int32")
        # Written by the device, read by the host.
        self.log, self.host_log = device.pinned((lengths[-1], n), "int32")
        self._bad_copy, self.host_bad = device.pinned((rows,), "int32")
        assert graph.flavour is not None and graph.cache is not None
        self._kind = CACHES[graph.flavour]
        self._cache_dtype = graph.cache.dtype
        # A cache is filled from its shorter neighbour, so that neighbours lie in memory of their own: two halves, as large as was needed.
        self._memory: list[DeviceArray | None] = [None, None]
        self._caches: dict[int, Cache] = {}
        self._replays: dict[int, Replay] = {}
        self._closed = False

    def cache(self, length: int) -> Cache:
        """Return the cache of this length. Its contents are stale: overwrite them before use. Raises OutOfMemory."""
        self._expect_open()
        if length not in self._caches:
            graph, half = self.engines.language_model.spec, self._half(length)
            memory = self._memory[half]
            if memory is None or self._kind.count(graph, self.rows, length) > memory.shape[0]:
                for other in [other for other in self._caches if self._half(other) == half]:
                    del self._caches[other]
                    self._drop_replay(other)
                memory = self._memory[half] = None
                # A picture always comes to its last length, and to make a half longer costs its replays.
                longest = max(each for each in self.lengths if self._half(each) == half) if self.guided else length
                memory = self.limits.device.empty((self._kind.count(graph, self.rows, longest),), self._cache_dtype)
                self.limits.device.clear(memory)  # a masked place counts for nothing only where it holds a number
                self._memory[half] = memory
            self._caches[length] = self._kind(self.limits.device, graph, memory, self.rows, length)
        return self._caches[length]

    def forget(self, length: int, lengths: Ids) -> None:
        """Zeros wherever nothing is held: keys and values of NaN would spoil what is masked beside them. `length` is that of the cache
        in use, whose rows hold lengths [R]."""
        used, own = self._half(length), self.cache(length)
        own.forget(lengths)
        for half, memory in enumerate(self._memory):
            if memory is not None:
                begin = int(np.prod(own.tensors.shape)) if half == used else 0
                self.limits.device.clear(memory[begin:])

    def close(self) -> None:
        """Frees caches and replays; what needs them raises BackendError from now on."""
        self._closed = True
        for length in list(self._replays):
            self._drop_replay(length)
        self._caches.clear()
        self._memory, self._table = [None, None], None

    def _half(self, length: int) -> int:
        return self.lengths.index(length) % 2

    def _drop_replay(self, length: int) -> None:
        if replay := self._replays.pop(length, None):
            replay.close()

    def set(self, logits: Mapping[int, Floats], draws: Mapping[int, Draw]) -> None:
        """What the next draw starts from: logits [V] of each row that takes part, and how each picture or answer, by its place among n,
        draws."""
        (n,) = self.ids.shape
        padded = np.zeros(self.logits.shape, np.float32)
        seeds, numbers, sampling = np.zeros(n, np.uint64), np.zeros(n, np.int32), np.zeros((n, 3), np.float64)
        temperatures, weights = np.ones(n, np.float32), np.zeros(n, np.float32)
        for row, found in logits.items():
            padded[row] = found
        for index, draw in draws.items():
            sampler, guidance = draw.sampler, draw.guidance
            seeds[index], numbers[index] = draw.seed, draw.first
            sampling[index] = sampler.greedy, sampler.top_k, sampler.top_p
            temperatures[index] = 1.0 if sampler.greedy else sampler.temperature
            weights[index] = guidance.cfg_weight if isinstance(guidance, Pairs) else 0.0
        for values, target in (
            (padded, self.logits),
            (seeds, self.seeds),
            (numbers, self.number),
            (sampling, self.sampling),
            (temperatures, self.temperature),
            (weights, self.cfg_weight),
        ):
            self.limits.device.upload(values, target)
        self.limits.device.clear(self.bad)

    def draw(self) -> None:
        """logits -> ids, which go to the log, and embeds."""
        self._expect_open()
        kernels = self.limits.device.kernels
        kernels.check(self.logits, self.active, self.number, self.bad)
        kernels.gumbel(self.noise, self.seeds, self.number, self.sampling)
        kernels.keep(self.noise, self.logits, self.cfg_weight, self.temperature, self.sampling)
        if self.engines.draw:
            numbers = {"logits": self.logits, "noise": self.noise, "temperature": self.temperature}
            self.engines.draw.enqueue({**numbers, "text_ids": self.ids, "embeds": self.embeds})
        else:
            assert self._table is not None
            kernels.draw(self.logits, self.noise, self.cfg_weight, self.temperature, self._table, self.ids, self.embeds)
        kernels.record(self.ids, self.log, self.number, self.bad, self._bad_copy)

    def decode(self, cache: Cache) -> None:
        """embeds -> hidden, and a place more in the cache."""
        own = {"embeds": self.embeds, "places": self.places, "hidden": self.hidden}
        self.engines.language_model.enqueue({**own, **cache.step()})
        cache.advance(self.active)

    def step(self, length: int) -> None:
        """logits -> logits, over the cache of this length. The first is done, the others are replays of it."""
        if length in self._replays:
            self._replays[length].launch()
            return
        self._step(length)
        self._replays[length] = self.limits.replay(lambda: self._step(length))

    def _step(self, length: int) -> None:
        self.draw()
        self.decode(self.cache(length))
        self.engines.head.enqueue({"hidden": self.hidden, "logits": self.logits})

    def _expect_open(self) -> None:
        if self._closed:
            raise BackendError("this model is closed; load it again")


def embed_every_id(limits: DecoderLimits, engines: LoopEngines) -> DeviceArray:
    """What the decoder sees of each id of a picture, [V, D], made on the device. The caller holds its lock. Raises OutOfMemory."""
    device, dtype, (vocabulary, width) = limits.device, engines.embed.spec.outputs["embeds"].dtype, engines.sizes
    count = min(limits.chunk, _EMBEDDED_AT_ONCE)
    table, part = device.empty((vocabulary, width), dtype), device.empty((1, count, width), dtype)
    for first in range(0, vocabulary, count):
        # All calls are of one shape; the last one's places beyond the last id are not looked at.
        ids = np.minimum(np.arange(first, first + count, dtype=np.int32), np.int32(vocabulary - 1))
        engines.embed.enqueue({"image_ids": upload_new(device, ids[None]), "embeds": part})
        # By way of `part`: TensorRT refuses addresses that are no multiples of 256, as a row's may be.
        nbytes = table[first : first + count].nbytes
        device.kernels.copy_2d(part, table[first:], 1, nbytes, nbytes, nbytes)
    return table


class LoopPool:
    """Every loop of a model: those that a session has, and those that nobody uses just now, kept for their memory and their replays. Those
    of pictures share one table of embeddings, which stays as weights do."""

    def __init__(self) -> None:
        self._device: Device | None = None
        self._table: DeviceArray | None = None
        self._idle: dict[tuple[str, int, int], list[Loop]] = {}
        self._all: WeakSet[Loop] = WeakSet()
        self._closed = False

    def acquire(self, limits: DecoderLimits, engines: LoopEngines, rows: int, lengths: tuple[int, ...]) -> Loop:
        """Raises OutOfMemory. The caller holds the device's lock."""
        self._device = limits.device
        self._device.reclaim = self.free
        if idle := self._idle.get((engines.head.name, rows, lengths[-1])):
            return idle.pop()
        if engines.draw is None and self._table is None:
            self._table = embed_every_id(limits, engines)
        loop = Loop(limits, engines, rows, lengths, self._table if engines.draw is None else None)
        self._all.add(loop)
        return loop

    def release(self, loop: Loop) -> None:
        """The caller holds the device's lock."""
        if not self._closed:
            self._idle.setdefault((loop.engines.head.name, loop.rows, loop.lengths[-1]), []).append(loop)

    def free(self) -> None:
        """Gives the memory of idle loops back."""
        for loops in self._idle.values():
            for loop in loops:
                loop.close()
        self._idle.clear()

    def close(self) -> None:
        """Waits for what is queued, which uses memory of loops and of engines. No loop goes on after this, used or not."""
        self._closed = True
        if self._device is None:
            return
        with self._device.lock:
            try:
                self._device.event().wait()
            finally:
                for loop in list(self._all):
                    loop.close()
                self._idle.clear()
                self._table = None
