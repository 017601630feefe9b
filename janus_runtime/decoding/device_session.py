"""DeviceSession: a session over a device that draws on by itself. See `Session` for the contract.

The host queues steps ahead and reads drawn ids from memory that the device writes; no step waits for the host.
Letters: R rows, k rows of one call, T tokens, S tokens of one call, D hidden size, V ids, n drawn ids a step.
"""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from ..errors import BackendError, NumericalError
from ..sampling.draw import Draw
from ..sampling.sampler import Floats, Ids
from .device import DecoderLimits, Event
from .device_loop import LoopEngines, LoopPool
from .engine import Modality, numerical_error
from .kv_cache import CACHES, Cache, smallest_holding, upload_new
from .session import Drawn, Embeds, RowLogits, RowTable, split_rows

# Steps are queued this far ahead: the device never waits for the host, and a draw that is cancelled is over in as long.
_AHEAD_SECONDS = 0.05
_AHEAD_STEPS = (2, 200)


class DeviceSession(RowTable):
    """Rows of one modality. A loop may have been built for more of them than were asked for, which stay idle.

    `lengths` on the host is the truth: what the device counts while it draws is made anew from it before each call.
    """

    uniform = True

    def __init__(self, limits: DecoderLimits, engines: LoopEngines, pool: LoopPool, rows: int, max_length: int) -> None:
        built = rows if limits.rows is None else smallest_holding(limits.rows, rows)
        if built is None:
            raise BackendError(
                f"{rows} rows at once were asked for, the plans hold {', '.join(map(str, limits.rows or ()))}; "
                f"use a smaller batch_size, or build more with 'janus-export engines DIR --rows {rows}'"
            )
        longest = smallest_holding(limits.lengths, max_length) or limits.lengths[-1]
        super().__init__(rows, min(max_length, longest))
        self._limits, self._device, self._pool = limits, limits.device, pool
        with self._device.lock:
            self._loop = pool.acquire(limits, engines, built, tuple(length for length in limits.lengths if length <= longest))
        self.language_model, self.embed, self.head = engines.language_model, engines.embed, engines.head
        assert engines.language_model.spec.cache is not None
        self._ragged_append = engines.language_model.spec.cache.ragged_append
        # The shortest until something is in it.
        self._length = self._loop.lengths[0]
        self._dtype = np.dtype(engines.language_model.spec.inputs["embeds"].dtype)
        self._modality: Modality = "image" if self._loop.guided else "text"
        self.modalities = [self._modality] * rows

    @property
    def _cache(self) -> Cache:
        return self._loop.cache(self._length)

    def prefill(self, embeds: Sequence[Embeds], rows: Sequence[int], modality: Modality) -> list[RowLogits]:
        if modality != self._modality:
            raise ValueError(
                f"got a {modality} row; on a device all rows of this session are {self._modality}: open another session for it"
            )
        before = self.lengths.copy()
        hidden = self.fill(embeds, rows)
        after, self.lengths = self.lengths, before
        logits = self._predict(hidden)
        for row, found in zip(rows, logits, strict=True):
            self.lengths[row] = self.lengths[row] if isinstance(found, NumericalError) else after[row]
        self._forget_after(logits)
        return logits

    def fill(self, embeds: Sequence[Embeds], rows: Sequence[int]) -> Embeds:
        counts = self.check_prefill(embeds, rows)
        if counts.max() == 1 and self.lengths[list(rows)].all():
            hidden = self._step(np.stack(embeds), list(rows))
        else:
            hidden = np.empty((len(rows), embeds[0].shape[-1]), self._dtype)
            with self._device.lock:
                self._fit(int((self.lengths[list(rows)] + counts).max()))
                for group in self._groups(rows):
                    hidden[group] = self._fill([embeds[index] for index in group], rows[group[0]], counts[group])
        self.lengths[list(rows)] += counts
        return hidden

    def step(self, ids: Ids, rows: Sequence[int] | None = None) -> list[RowLogits]:
        chosen = self.check_step(ids, rows)
        logits = self._predict(self._step(self.embed.run({f"{self._modality}_ids": ids[:, None]})["embeds"], chosen))
        self.lengths[chosen] += [not isinstance(found, NumericalError) for found in logits]
        self._forget_after(logits)
        return logits

    def _step(self, embeds: Embeds, rows: list[int]) -> Embeds:
        """One token [k, 1, D] for each of these rows, whose lengths stay -> hidden [k, D]. All rows of the loop run."""
        padded = np.zeros(self._loop.embeds.shape, self._dtype)
        padded[rows] = embeds
        active = np.zeros(self._loop.rows, np.int32)
        active[rows] = 1
        with self._device.lock:
            self._fit(int(self.lengths.max()) + 1)
            self._load(self.lengths, active)
            self._device.upload(padded, self._loop.embeds)
            self._loop.decode(self._cache)
            return self._device.download(self._loop.hidden)[rows]

    def draw(self, logits: Sequence[Floats], rows: Sequence[int], draws: Sequence[Draw], limit: int) -> Iterator[list[Drawn]]:
        self.check_open()
        loop, start = self._loop, self._built_lengths()
        busy = np.zeros(loop.rows, np.int32)
        busy[list(rows)] = 1
        places = self._places(rows, draws)
        if start[list(rows)].max() + limit - 1 > self.max_length:
            raise ValueError(f"got {limit} draws after {start.max()} tokens; expected {self.max_length} tokens at most")
        with self._device.lock:
            self._load(start, busy)
            loop.set(dict(zip(rows, logits, strict=True)), dict(zip(places, draws, strict=True)))
        firsts, own = [draw.first for draw in draws], busy[: self.rows]
        # Where the log has what a step drew: a line for all of them where they are of one age.
        alike, log = len(set(firsts)) == 1, loop.host_log
        queued: deque[Event] = deque()
        began, (least, most) = time.perf_counter(), _AHEAD_STEPS
        ahead = least
        for step in range(limit):
            wanted = min(ahead, limit - step)
            if 2 * len(queued) <= wanted:
                steps = range(step + len(queued), step + wanted)
                # The lock first: whoever holds it may be waiting for the thread that `run` works on.
                with self._device.lock:
                    queued.extend(self._limits.run(partial(self._queue, start, busy, steps, limit)))
            queued.popleft().wait()
            ahead = min(max(math.ceil(_AHEAD_SECONDS * (step + 1) / (time.perf_counter() - began)), least), most)
            if step:
                self.lengths += own
            if alike:
                line = log[firsts[0] + step].tolist()
                drawn: list[Drawn] = [line[place] for place in places]
            else:
                drawn = [int(log[first + step, place]) for first, place in zip(firsts, places, strict=True)]
            if loop.host_bad.any() and any(failed := self._failed(rows, np.array(firsts) + step + 1)):
                if step:
                    each = len(rows) // len(draws)
                    self.lengths[[row for index, row in enumerate(rows) if failed[index // each]]] -= 1
                self._forget()
                error = numerical_error(self.head.name, f" after {self.lengths.max()} tokens")
                yield [error if wrong else id for wrong, id in zip(failed, drawn, strict=True)]
                return
            yield drawn

    def _failed(self, rows: Sequence[int], numbers: Ids) -> list[bool]:
        """Whether each draw of these rows met NaN or Inf by its draw of this number, from 1; later ones may never be asked for."""
        # Of each row, the number of the first such draw.
        bad = self._loop.host_bad[list(rows)].reshape(len(numbers), -1)
        return [bool(wrong.any()) for wrong in (bad > 0) & (bad <= numbers[:, None])]

    def _places(self, rows: Sequence[int], draws: Sequence[Draw]) -> list[int]:
        """Where the loop has each of these draws."""
        each = 2 if self._loop.guided else 1
        if others := [draw.guidance.rows for draw in draws if draw.guidance.rows != each]:
            raise ValueError(f"got {others[0]} rows a draw; {self._modality} draws on a device take {each}")
        places = [row // each for row in rows[::each]]
        if list(rows) != [place * each + i for place in places for i in range(each)]:
            raise ValueError(f"got rows {list(rows)}; expected those of each draw to be neighbours from a multiple of {each} on")
        return places

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        copied = self.check_copy(source, target, length)
        with self._device.lock:
            self._cache.copy(source, target)
        self.lengths[target] = copied

    def truncate(self, row: int, length: int = 0) -> None:
        self.check_truncate(row, length)
        self.lengths[row] = length

    def row_bytes(self, length: int) -> int:
        spec = self.language_model.spec
        assert spec.flavour is not None and spec.cache is not None
        return CACHES[spec.flavour].count(spec, 1, length) * np.dtype(spec.cache.dtype).itemsize

    def trim(self) -> None:
        pass  # A loop keeps its memory as long as a session has it.

    def close(self) -> None:
        """Gives the loop back, for the next session; the pool frees its memory when another needs it."""
        if not self._closed:
            super().close()
            with self._device.lock:
                self._pool.release(self._loop)

    def _built_lengths(self) -> Ids:
        """Of all rows of the loop, idle ones included."""
        lengths = np.zeros(self._loop.rows, np.int32)
        lengths[: self.rows] = self.lengths
        return lengths

    def _queue(self, start: Ids, busy: Ids, steps: range, limit: int) -> list[Event]:
        """Queues these steps of a draw from lengths `start` [R] -> the event after each. The last of `limit` steps is a draw alone; the
        others end with the decoder over what was drawn, in a place more of each `busy` row."""
        longest, events = int(start.max()), []
        for step in steps:
            if step == limit - 1:
                self._loop.draw()
            else:
                if longest + step + 1 > self._length:
                    self._fit(longest + step + 1)
                    self._cache.load(start + busy * step)
                self._loop.step(self._length)
            events.append(self._device.event())
        return events

    def _groups(self, rows: Sequence[int]) -> list[list[int]]:
        """Places in `rows` that one call fills: neighbours in order, and filled ones alone where the graph must have them so."""
        groups: list[list[int]] = []
        for index, row in enumerate(rows):
            alone = not self._ragged_append and (self.lengths[row] > 0 or (index > 0 and self.lengths[rows[index - 1]] > 0))
            if groups and rows[index - 1] == row - 1 and not alone:
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups

    def _fill(self, embeds: Sequence[Embeds], row: int, counts: Ids) -> Embeds:
        """Prompts into the rows from `row` on, padded on the right, chunk by chunk -> hidden [k, D] of each one's last token."""
        rows = slice(row, row + len(embeds))
        lengths = self.lengths[rows].copy()
        padded = np.zeros((len(embeds), counts.max(), embeds[0].shape[-1]), self._dtype)
        for index, each in enumerate(embeds):
            padded[index, : len(each)] = each
        hidden = np.empty((len(embeds), padded.shape[2]), self._dtype)
        chunk = padded.shape[1] if not self._ragged_append and len(embeds) > 1 else self._limits.chunk
        for begin in range(0, padded.shape[1], chunk):
            taken = np.clip(counts - begin, 0, chunk).astype(np.int32)
            got = self._run(padded[:, begin : begin + chunk], rows, lengths + np.minimum(counts, begin), taken)
            # A row that ended in an earlier chunk has its answer.
            hidden[taken > 0] = got[taken > 0]
        return hidden

    def _run(self, embeds: Embeds, rows: slice, lengths: Ids, counts: Ids) -> Embeds:
        """embeds [k, S, D], of which counts [k] are real, into rows that hold lengths [k] -> hidden [k, D] of the last real ones."""
        count, tokens, width = embeds.shape
        places = np.arange(count, dtype=np.int32) * np.int32(tokens) + np.maximum(counts, 1) - 1
        own = {"embeds": upload_new(self._device, embeds), "places": upload_new(self._device, places.astype(np.int32))}
        hidden = self._device.empty((count, width), self._dtype.name)
        chunk = self._cache.chunk(rows, lengths, counts, tokens)
        self.language_model.enqueue({**own, "hidden": hidden, **chunk.tensors})
        self._cache.store(chunk, rows, lengths, counts)
        return self._device.download(hidden)

    def _load(self, lengths: Ids, active: Ids) -> None:
        """Tells the device how long every row is, and which take part."""
        built = np.zeros(self._loop.rows, np.int32)
        built[: len(lengths)] = lengths
        self._device.upload(active, self._loop.active)
        self._cache.load(built)

    def _fit(self, needed: int) -> None:
        """Moves to a cache that holds `needed` tokens, by way of those between; an empty session starts there."""
        lengths = self._loop.lengths
        target = smallest_holding(lengths, needed)
        assert target is not None, f"{needed} tokens in a cache of {lengths[-1]}"
        if not self.lengths.any():
            self._length = target
        while self._length < target:
            longer = lengths[lengths.index(self._length) + 1]
            self._loop.cache(longer).grow(self._cache)
            self._length = longer

    def _predict(self, hidden: Embeds) -> list[RowLogits]:
        """Hidden states [k, D] -> logits of each row."""
        logits = self.head.run({"hidden": hidden})["logits"]
        when = f" after {self.lengths.max()} tokens"
        return split_rows(logits, (self.language_model.name, hidden), (self.head.name, logits), when=when)

    def _forget_after(self, logits: Sequence[RowLogits]) -> None:
        if any(isinstance(row, NumericalError) for row in logits):
            self._forget()

    def _forget(self) -> None:
        with self._device.lock:
            self._loop.forget(self._length, self._built_lengths())
