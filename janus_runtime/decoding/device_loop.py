"""Loop: one step of a decoder as work that a device repeats by itself, over memory of its own.

A step is noise, draw, decoder, head: what was drawn goes back in without the host. Letters: R rows, D hidden size, V ids,
n drawn ids a step (R with no guidance, else R / 2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

import numpy as np

from ..errors import BackendError, OutOfMemory
from ..sampling.sampler import Floats, Sampler
from .device import Device, DeviceArray, DeviceEngine, Replay
from .engine import Engine
from .kv_cache import CACHES, Cache, uploaded


class GraphEngine(Engine, DeviceEngine, Protocol):
    """An engine that takes arrays of the host or of the device."""


@dataclass(frozen=True)
class LoopEngines:
    """`embed` is for ids that the host knows; the loop's own draw embeds by itself."""

    embed: GraphEngine
    language_model: GraphEngine
    head: GraphEngine
    draw: GraphEngine


@dataclass(frozen=True)
class Steps:
    """What a backend's decoder can do: row counts and cache lengths in rising order, and how many tokens it takes at once.

    `replay` turns work that was done once into something to queue again.
    """

    device: Device
    rows: tuple[int, ...] | None
    lengths: tuple[int, ...]
    piece: int
    replay: Callable[[Callable[[], None]], Replay]


class Loop:
    """R rows on a device, at fixed addresses, with caches of `lengths`. Used by one session after the other. Raises OutOfMemory."""

    def __init__(self, steps: Steps, engines: LoopEngines, rows: int, lengths: tuple[int, ...]) -> None:
        self.steps, self.engines, self.rows, self.lengths = steps, engines, rows, lengths
        graph, draw = engines.language_model.spec, engines.draw.spec
        *_, width = graph.inputs["embeds"].shape
        *_, vocabulary = draw.inputs["logits"].shape
        assert isinstance(width, int) and isinstance(vocabulary, int)
        self.guided = "cfg_weight" in draw.inputs
        n, each = (rows // 2, 2) if self.guided else (rows, 1)
        dtype, empty = graph.inputs["embeds"].dtype, steps.device.empty
        self.embeds, self.hidden = empty((rows, 1, width), dtype), empty((rows, width), dtype)
        self.last_row = uploaded(steps.device, np.arange(rows, dtype=np.int32))
        self.logits, self.noise = empty((rows, vocabulary), "float32"), empty((n, vocabulary), "float32")
        self.ids, self.active = empty((n,), "int32"), empty((rows,), "int32")
        self.seeds, self.number, self.sampling = empty((n,), "uint64"), empty((1,), "int32"), empty((3,), "float64")
        self.cfg_weight, self.temperature = empty((1,), "float32"), empty((1,), "float32")
        # Written by the device, read by the host.
        self.log, self.host_log = steps.device.pinned((lengths[-1], n), "int32")
        self.bad, self.host_bad = steps.device.pinned((1,), "int32")
        ids = next(name for name in draw.outputs if name != "embeds")
        self._draw: dict[str, DeviceArray] = {
            "logits": self.logits.reshape(n, 2, vocabulary) if self.guided else self.logits,
            "noise": self.noise,
            "temperature": self.temperature,
            **({"cfg_weight": self.cfg_weight} if self.guided else {}),
            ids: self.ids,
            "embeds": self.embeds.reshape(n, each, width),
        }
        self._kind = CACHES[engines.language_model.name.split(".")[1]]
        # A cache is filled from its shorter neighbour, so that neighbours lie in memory of their own: two halves, as large as was needed.
        self._memory: list[DeviceArray | None] = [None, None]
        self._caches: dict[int, Cache] = {}
        self._replays: dict[int, Replay] = {}
        self._closed = False

    def cache(self, length: int) -> Cache:
        """The cache of this length; whatever it held, it is somebody else's. Raises OutOfMemory."""
        self._expect_open()
        if length not in self._caches:
            graph, half = self.engines.language_model.spec, self.lengths.index(length) % 2
            memory = self._memory[half]
            if memory is None or self._kind.count(graph, self.rows, length) > memory.shape[0]:
                for other in [other for other in self._caches if self.lengths.index(other) % 2 == half]:
                    del self._caches[other]
                    self._replays.pop(other, None)
                memory = self._memory[half] = None
                memory = self.steps.device.empty((self._kind.count(graph, self.rows, length),), graph.inputs["past_key_0"].dtype)
                self.steps.device.clear(memory)  # a masked place counts for nothing only where it holds a number
                self._memory[half] = memory
            self._caches[length] = self._kind(self.steps.device, graph, memory, self.rows, length)
        return self._caches[length]

    def close(self) -> None:
        """Frees caches and replays; what needs them raises BackendError from now on."""
        self._closed = True
        self._replays.clear()
        self._caches.clear()
        self._memory = [None, None]

    def set(self, logits: Floats, seeds: list[int], sampler: Sampler, cfg_weight: float | None) -> None:
        """What the next draw starts from: logits [R or fewer, V], a seed for each of n pictures or answers, or fewer."""
        padded = np.zeros(self.logits.shape, np.float32)
        padded[: len(logits)] = logits
        keys = np.zeros(self.seeds.shape, np.uint64)
        keys[: len(seeds)] = seeds
        for values, target in (
            (padded, self.logits),
            (keys, self.seeds),
            (np.zeros(1, np.int32), self.number),
            (np.array([sampler.greedy, sampler.top_k, sampler.top_p], np.float64), self.sampling),
            (np.array([1.0 if sampler.greedy else sampler.temperature], np.float32), self.temperature),
            (np.array([cfg_weight or 0.0], np.float32), self.cfg_weight),
        ):
            self.steps.device.upload(values, target)
        self.steps.device.clear(self.bad)

    def draw(self) -> None:
        """logits -> ids, which go to the log, and embeds."""
        self._expect_open()
        kernels = self.steps.device.kernels
        kernels.check(self.logits, self.active, self.number, self.bad)
        kernels.gumbel(self.noise, self.seeds, self.number, self.sampling)
        kernels.keep(self.noise, self.logits, self.cfg_weight, self.temperature, self.sampling)
        self.engines.draw.enqueue(self._draw)
        kernels.record(self.ids, self.log, self.number)

    def decode(self, cache: Cache) -> None:
        """embeds -> hidden, and a place more in the cache."""
        own = {"embeds": self.embeds, "last_row": self.last_row, "hidden": self.hidden}
        self.engines.language_model.enqueue({**own, **cache.step()})
        cache.advance(self.active)

    def step(self, length: int) -> None:
        """logits -> logits, over the cache of this length. The first is done, the others are replays of it."""
        if length in self._replays:
            self._replays[length].launch()
            return
        self._step(length)
        self._replays[length] = self.steps.replay(lambda: self._step(length))

    def _step(self, length: int) -> None:
        self.draw()
        self.decode(self.cache(length))
        self.engines.head.enqueue({"hidden": self.hidden, "logits": self.logits})

    def _expect_open(self) -> None:
        if self._closed:
            raise BackendError("this model is closed; load it again")


class Loops:
    """Every loop of a backend: those that a session has, and those that nobody uses just now, kept for their memory and their replays."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int, int], list[Loop]] = {}
        self._all: WeakSet[Loop] = WeakSet()
        self._closed = False

    def take(self, steps: Steps, engines: LoopEngines, rows: int, lengths: tuple[int, ...]) -> Loop:
        """Raises OutOfMemory, with all memory of idle loops given back."""
        if idle := self._idle.get((engines.draw.name, rows, lengths[-1])):
            return idle.pop()
        try:
            loop = Loop(steps, engines, rows, lengths)
        except OutOfMemory:
            self.free()
            loop = Loop(steps, engines, rows, lengths)
        self._all.add(loop)
        return loop

    def give(self, loop: Loop) -> None:
        if not self._closed:
            self._idle.setdefault((loop.engines.draw.name, loop.rows, loop.lengths[-1]), []).append(loop)

    def free(self) -> None:
        """Gives the memory of idle loops back."""
        # More may be given meanwhile: a session ends wherever it is collected, without the lock.
        while self._idle:
            _, loops = self._idle.popitem()
            for loop in loops:
                loop.close()

    def close(self) -> None:
        """No loop goes on after this, used or not."""
        self._closed = True
        for loop in list(self._all):
            loop.close()
        self._idle.clear()
