"""DeviceSession: what `Session` is, over a device that draws on by itself.

The host queues steps ahead and reads drawn ids from memory that the device writes; no step waits for the host.
Letters: R rows, k rows of one prefill, T tokens, S tokens of one call, D hidden size, V ids, n drawn ids a step.
"""

import math
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, NumericalError
from ..sampling.noise import Noise
from ..sampling.sampler import Floats, Ids, Sampler
from .device import Event
from .device_loop import LoopEngines, Loops, Steps
from .engine import check_finite
from .kv_cache import Cache, fitting, uploaded

Embeds = NDArray[Any]

# Steps are queued this far ahead: the device never waits for the host, and a draw that is cancelled is over in as long.
_AHEAD_SECONDS = 0.05
_AHEAD_STEPS = (2, 200)


class DeviceSession:
    """Keys and values of R sequences on a device, at least as many as asked for. Methods and their contracts are those of `Session`.

    Where an array is of fewer rows, it is of the first ones, and the others stay idle.

    `lengths` on the host is the truth: what the device counts while it draws is made anew from it before each call.
    """

    def __init__(self, steps: Steps, engines: LoopEngines, loops: Loops, rows: int, max_length: int) -> None:
        built = rows if steps.rows is None else fitting(steps.rows, rows)
        if built is None:
            raise BackendError(
                f"{rows} rows at once were asked for, the plans hold {', '.join(map(str, steps.rows or ()))}; "
                f"use a smaller --batch-size, or build more with 'janus-export engines DIR --rows {rows}'"
            )
        longest = fitting(steps.lengths, max_length) or steps.lengths[-1]
        with steps.device.lock:
            loop = loops.take(steps, engines, built, tuple(length for length in steps.lengths if length <= longest))
        weakref.finalize(self, loops.give, loop).atexit = False
        self.language_model, self.embed, self.head = engines.language_model, engines.embed, engines.head
        self.max_length = min(max_length, longest)
        self.lengths = np.zeros(built, np.int32)
        self._steps, self._device, self._loop = steps, steps.device, loop
        # Of the shortest length until something is in it.
        self._length = loop.lengths[0]
        self._dtype = np.dtype(engines.language_model.spec.inputs["embeds"].dtype)
        self._ids_name = next(iter(engines.embed.spec.inputs))

    @property
    def _cache(self) -> Cache:
        return self._loop.cache(self._length)

    @property
    def rows(self) -> int:
        return len(self.lengths)

    def prefill(self, embeds: Sequence[Embeds], slot: int = 0) -> Floats:
        hidden, counts = self._fill(embeds, slot)
        logits = self._logits(hidden, np.ones(len(embeds), bool))
        self.lengths[slot : slot + len(embeds)] += counts
        return logits

    def step(self, ids: Ids) -> Floats:
        hidden = self._decode(self.embed.run({self._ids_name: ids[:, None]})["embeds"])
        logits = self._logits(hidden, self.lengths[: len(ids)] > 0)
        self.lengths += self.lengths > 0
        return logits

    def extend(self, embeds: Sequence[Embeds], slot: int = 0) -> Embeds:
        hidden, counts = self._fill(embeds, slot)
        self.lengths[slot : slot + len(embeds)] += counts
        return hidden

    def advance(self, embeds: Embeds) -> Embeds:
        hidden = self._decode(embeds)
        self.lengths += self.lengths > 0
        return hidden

    def draw(
        self,
        logits: Floats,
        limit: int,
        sampler: Sampler,
        noise: Noise,
        cfg_weight: float | None = None,
        image_weight: float | None = None,
    ) -> Iterator[Ids]:
        assert image_weight is None, "draws on a device are of pairs; Janus.generate refuses others"
        loop, start, busy = self._loop, self.lengths.copy(), (self.lengths > 0).astype(np.int32)
        assert loop.guided == (cfg_weight is not None), "pictures are drawn under guidance, text is not"
        assert start.max() + limit - 1 <= self.max_length, f"{limit} draws after {start.max()} tokens in a cache of {self.max_length}"
        with self._device.lock:
            self._load(start)
            loop.set(logits, noise.seeds, sampler, cfg_weight)
        queued: deque[Event] = deque()
        began, ahead = time.perf_counter(), _AHEAD_STEPS[0]
        for step in range(limit):
            while len(queued) < min(ahead, limit - step):
                queued.append(self._queue(start + busy * (step + len(queued)), last=step + len(queued) == limit - 1))
            queued.popleft().wait()
            each = (time.perf_counter() - began) / (step + 1)
            ahead = int(np.clip(math.ceil(_AHEAD_SECONDS / each), *_AHEAD_STEPS))
            # The number of the first draw whose logits were none, from 1; later ones may never be asked for.
            if 0 < loop.host_bad[0] <= step + 1:
                self._forget()
                check_finite(self.head.name, np.array([np.nan]), f" after {self.lengths.max()} tokens")
            if step:
                self.lengths += busy
            yield loop.host_log[step].copy()

    def replicate(self, source: int, target: int) -> None:
        with self._device.lock:
            self._cache.replicate(source, target)
        self.lengths[target] = self.lengths[source]

    def truncate(self, slot: int, length: int = 0) -> None:
        self.lengths[slot] = length

    def _queue(self, lengths: Ids, last: bool) -> Event:
        """Queues the draw that follows `lengths` [R] and, but for the last, the step over what it drew."""
        with self._device.lock:
            if last:
                self._loop.draw()
            else:
                if lengths.max() + 1 > self._cache.length:
                    self._fit(int(lengths.max()) + 1)
                    self._cache.load(lengths)
                self._loop.step(self._cache.length)
            return self._device.event()

    def _fill(self, embeds: Sequence[Embeds], slot: int) -> tuple[Embeds, Ids]:
        """Pads the sequences on the right and runs them piece by piece -> hidden [k, D] and how many tokens each has [k]."""
        counts = np.array([len(row) for row in embeds], np.int32)
        rows = slice(slot, slot + len(embeds))
        lengths = self.lengths[rows].copy()
        assert len(embeds) == 1 or not lengths.any(), "only a single row can continue a filled slot"
        after = int((lengths + counts).max())
        assert after <= self.max_length, f"{after} tokens in a cache of {self.max_length}"
        padded = np.zeros((len(embeds), counts.max(), embeds[0].shape[-1]), self._dtype)
        for index, row in enumerate(embeds):
            padded[index, : len(row)] = row
        hidden = np.empty((len(embeds), padded.shape[2]), self._dtype)
        with self._device.lock:
            self._fit(after)
            piece = padded.shape[1] if self._cache.one_call else self._steps.piece
            for begin in range(0, padded.shape[1], piece):
                taken = np.clip(counts - begin, 0, piece).astype(np.int32)
                got = self._run(padded[:, begin : begin + piece], rows, lengths + np.minimum(counts, begin), taken)
                # A row that ended in an earlier piece has its answer.
                hidden[taken > 0] = got[taken > 0]
        return hidden, counts

    def _run(self, embeds: Embeds, rows: slice, lengths: Ids, counts: Ids) -> Embeds:
        """embeds [k, S, D], of which counts [k] are real, into rows that hold lengths [k] -> hidden [k, D] of the last real one."""
        count, tokens, width = embeds.shape
        last_row = np.arange(count, dtype=np.int32) * np.int32(tokens) + np.maximum(counts, 1) - 1
        own = {"embeds": uploaded(self._device, embeds), "last_row": uploaded(self._device, last_row.astype(np.int32))}
        hidden = self._device.empty((count, width), self._dtype.name)
        piece = self._cache.piece(rows, lengths, counts, tokens)
        self.language_model.enqueue({**own, "hidden": hidden, **piece.tensors})
        self._cache.store(piece, rows, lengths, counts)
        return self._device.download(hidden)

    def _decode(self, embeds: Embeds) -> Embeds:
        """One token for every row [R, 1, D] -> hidden [R, D]."""
        padded = np.zeros(self._loop.embeds.shape, self._dtype)
        padded[: len(embeds)] = embeds
        with self._device.lock:
            self._fit(int(self.lengths.max()) + 1)
            self._load(self.lengths)
            self._device.upload(padded, self._loop.embeds)
            self._loop.decode(self._cache)
            return self._device.download(self._loop.hidden)[: len(embeds)]

    def _load(self, lengths: Ids) -> None:
        """Tells the device how long every row is, and which are in use."""
        self._device.upload((lengths > 0).astype(np.int32), self._loop.active)
        self._cache.load(lengths)

    def _fit(self, needed: int) -> None:
        """Moves to a cache that holds `needed` tokens, by way of those between; an empty session starts there."""
        lengths = self._loop.lengths
        target = fitting(lengths, needed)
        assert target is not None, f"{needed} tokens in a cache of {lengths[-1]}"
        if not self.lengths.any():
            self._length = target
        while self._length < target:
            longer = lengths[lengths.index(self._length) + 1]
            self._loop.cache(longer).grow(self._cache)
            self._length = longer

    def _logits(self, hidden: Embeds, used: NDArray[np.bool_]) -> Floats:
        """As `Session._logits`."""
        logits: Floats = self.head.run({"hidden": hidden})["logits"]
        try:
            for engine, values in ((self.language_model, hidden), (self.head, logits)):
                check_finite(engine.name, values[used], f" after {self.lengths.max()} tokens")
        except NumericalError:
            self._forget()
            raise
        return logits

    def _forget(self) -> None:
        """Zeros where nothing is held: there, keys and values that are no numbers would spoil what comes after them."""
        with self._device.lock:
            self._cache.forget(self.lengths)
