"""HostSession: a session whose cache is NumPy's and whose decoder runs on the host. See `Session` for the contract.

Letters: R rows, L filled rows, k rows of one call, S new tokens, P places of the cache, D hidden size, V ids.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np

from ..errors import NumericalError
from ..sampling.guidance import Guidance
from ..sampling.noise import Noise
from ..sampling.sampler import Floats, Ids, Sampler
from .engine import Array, Binding, HostEngine, Modality
from .engines import Engines
from .session import Embeds, RowLogits, RowTable, split_rows, stack_rows

# Tokens of a prompt that one call takes over an int8 cache, where attention computes a whole chunk against all of its keys, those to come
# included: 616 tokens take 7 % less than in one call (bench/NOTES.md, 8).
_CHUNK = 256


class HostSession(RowTable):
    """The cache is [R, heads, P, head size] a layer and part, bound as input and output of every call: a call never copies it.

    Filled rows lie packed in its first L slots, so that free ones cost nothing. `capacity` P is `max_length` from the start, or, if the
    session `grows`, what the longest row holds and half as much again.
    """

    def __init__(self, engines: Engines, rows: int, max_length: int, grows: bool = False) -> None:
        super().__init__(rows, max_length)
        self._engines = engines
        language_model = cast(HostEngine, engines.language_model)
        assert language_model.spec.cache is not None
        self.language_model = language_model
        self._names = language_model.spec.cache
        self._cache_dtype = np.dtype(self._names.dtype)
        self._dtype = np.dtype(language_model.spec.inputs["embeds"].dtype)
        sizes = engines.manifest.language_model
        self._cache = [np.zeros((rows, sizes.num_heads, 0, sizes.head_size), self._cache_dtype) for _ in self._names.inputs]
        self._chunk = _CHUNK if self._cache_dtype == np.int8 else max_length
        # The row in each slot, and the other way round.
        self._rows: list[int] = []
        self._slots: dict[int, int] = {}
        # Decoders bound to the slots of a call. A binding takes the addresses of many tensors, so those of steps are kept.
        self._bindings: dict[int, Binding] = {}
        if not grows:
            self._allocate(max_length)

    @property
    def capacity(self) -> int:
        """Tokens a row that the cache has room for now."""
        return int(self._cache[0].shape[2])

    def prefill(self, embeds: Sequence[Embeds], rows: Sequence[int], modality: Modality) -> list[RowLogits]:
        before = self.lengths.copy()
        hidden = self.fill(embeds, rows)
        with self._undone_on_error(rows, before):
            logits = self._predict(hidden, [modality] * len(rows))
        for row, found in zip(rows, logits, strict=True):
            self.modalities[row] = modality
            if isinstance(found, NumericalError):
                self._set_length(row, int(before[row]))
        return logits

    def fill(self, embeds: Sequence[Embeds], rows: Sequence[int]) -> Embeds:
        counts = self.check_prefill(embeds, rows)
        held = self.lengths[list(rows)]
        self._make_room(int((held + counts).max()))
        # ONNX Runtime's operator takes several rows of several tokens only over an empty cache.
        together = len(rows) > 1 and (not held.any() or (held.all() and counts.max() == 1))
        with self._undone_on_error(rows, self.lengths.copy()):
            if together:
                return self._fill_together(embeds, rows, counts)
            return np.concatenate([self._fill_one(row, each) for row, each in zip(rows, embeds, strict=True)])

    def step(self, ids: Ids, rows: Sequence[int] | None = None) -> list[RowLogits]:
        chosen = self.check_step(ids, rows)
        modalities = [self.modalities[row] for row in chosen]
        self._make_room(int(self.lengths[chosen].max()) + 1)
        logits = self._predict(self._step(self._embed(ids, modalities), chosen), modalities)
        self.lengths[chosen] += [not isinstance(found, NumericalError) for found in logits]
        return logits

    def draw(self, logits: Floats, limit: int, sampler: Sampler, noise: Noise, guidance: Guidance) -> Iterator[Ids]:
        for step in range(limit):
            ids = sampler(guidance.mix(logits), None if sampler.greedy else noise(step))
            yield ids
            if step < limit - 1:
                logits = stack_rows(self.step(ids.repeat(guidance.rows)))

    def copy(self, source: int, target: int) -> None:
        self.check_row(source)
        self.check_row(target)
        length = int(self.lengths[source])
        self._set_length(target, length)
        if length:
            self._copy_slot(self._slots[source], self._slots[target], length)
        self.modalities[target] = self.modalities[source]

    def truncate(self, row: int, length: int = 0) -> None:
        self.check_truncate(row, length)
        self._set_length(row, length)

    def close(self) -> None:
        super().close()
        self._bindings.clear()
        self._cache = []
        self._rows, self._slots = [], {}

    def _embed(self, ids: Ids, modalities: Sequence[Modality]) -> Embeds:
        """Ids [k] -> [k, 1, D], each by its own table."""
        found = [(self._engines.embed_ids(modality, ids[places][:, None]), places) for modality, places in _by_modality(modalities)]
        if len(found) == 1:
            return found[0][0]
        embeds = np.empty((len(ids), *found[0][0].shape[1:]), self._dtype)
        for values, places in found:
            embeds[places] = values
        return embeds

    def _predict(self, hidden: Embeds, modalities: Sequence[Modality]) -> list[RowLogits]:
        """Hidden states [k, D] -> logits of each row, by its own head."""
        rows: list[RowLogits] = [None] * len(hidden)  # type: ignore[list-item]
        when = f" after {self.lengths.max()} tokens"
        for modality, places in _by_modality(modalities):
            own = hidden if len(places) == len(hidden) else hidden[places]
            logits, head = self._engines.predict(modality, own)
            for place, found in zip(places, split_rows(logits, (self.language_model.name, own), (head, logits), when=when), strict=True):
                rows[place] = found
        return rows

    @contextmanager
    def _undone_on_error(self, rows: Sequence[int], before: Ids) -> Iterator[None]:
        """These rows get back their lengths of `before` [R] where something fails inside."""
        try:
            yield
        except BaseException:
            for row in rows:
                self._set_length(row, int(before[row]))
            raise

    def _fill_together(self, embeds: Sequence[Embeds], rows: Sequence[int], counts: Ids) -> Embeds:
        """Rows that are all free, or all take one token, in one call -> hidden [k, D]."""
        if self.lengths[rows[0]]:
            hidden = self._step(np.stack(embeds).astype(self._dtype, copy=False), rows)
            self.lengths[list(rows)] += 1
            return hidden
        padded = np.zeros((len(embeds), counts.max(), embeds[0].shape[-1]), self._dtype)
        for index, each in enumerate(embeds):
            padded[index, : len(each)] = each
        first = len(self._rows)
        for row, count in zip(rows, counts, strict=True):
            self._set_length(row, count)
        return self._bound(first, len(rows)).run(_inputs(padded, np.zeros(len(rows), np.int32), counts))["hidden"]

    def _fill_one(self, row: int, embeds: Embeds) -> Embeds:
        """A sequence [T, D] after what the row holds, chunk by chunk -> hidden [1, D] of its last token."""
        for start in range(0, len(embeds), self._chunk):
            chunk = embeds[None, start : start + self._chunk].astype(self._dtype, copy=False)
            before, count = self.lengths[[row]], np.array([chunk.shape[1]], np.int32)
            self._set_length(row, int(before[0] + count[0]))
            hidden = self._bound(self._slots[row], 1).run(_inputs(chunk, before, count))["hidden"]
        return hidden

    def _step(self, embeds: Embeds, rows: Sequence[int]) -> Embeds:
        """One token [k, 1, D] for each of these rows, whose lengths stay -> hidden [k, D]. Neighbouring slots share a call."""
        slots = np.array([self._slots[row] for row in rows])
        order = slots.argsort()
        hidden = np.empty((len(rows), embeds.shape[-1]), self._dtype)
        for places in np.split(order, np.flatnonzero(np.diff(slots[order]) > 1) + 1):
            before = self.lengths[[rows[place] for place in places]]
            inputs = _inputs(embeds[places], before, np.ones(len(places), np.int32))
            hidden[places] = self._bound(int(slots[places[0]]), len(places)).run(inputs)["hidden"]
        return hidden

    def _bound(self, slot: int, rows: int) -> Binding:
        """The decoder over the cache of these slots, read and written in place."""
        if slot == 0 and rows in self._bindings:
            return self._bindings[rows]
        cache = [tensor[slot : slot + rows] for tensor in self._cache]
        binding = self.language_model.bind(
            dict(zip(self._names.inputs, cache, strict=True)), dict(zip(self._names.outputs, cache, strict=True))
        )
        if slot == 0:
            self._bindings[rows] = binding
        return binding

    def _set_length(self, row: int, length: int) -> None:
        """Keeps filled rows in the first slots: a row that becomes filled takes the next one, a row that becomes free gives its slot to
        the last."""
        if length and row not in self._slots:
            self._slots[row] = len(self._rows)
            self._rows.append(row)
        elif not length and row in self._slots:
            slot, last = self._slots.pop(row), self._rows.pop()
            if last != row:
                self._copy_slot(len(self._rows), slot, int(self.lengths[last]))
                self._rows[slot], self._slots[last] = last, slot
        self.lengths[row] = length

    def _copy_slot(self, source: int, target: int, length: int) -> None:
        for tensor in self._cache:
            tensor[target, :, :length] = tensor[source, :, :length]

    def _make_room(self, length: int) -> None:
        """Grows the cache where it is shorter than `length`."""
        if length > self.capacity:
            self._allocate(min(length + length // 2, self.max_length))

    def _allocate(self, capacity: int) -> None:
        """Moves the cache to longer arrays, one tensor at a time. Out of memory, it stays as it was: raises MemoryError."""
        rows, heads, _, head_size = self._cache[0].shape
        # The system hands out zeroed pages when they are first written, so all of them together cost nothing yet.
        longer = [np.zeros((rows, heads, capacity, head_size), self._cache_dtype) for _ in self._cache]
        self._bindings.clear()  # They hold the old arrays.
        filled, held = len(self._rows), int(self.lengths.max())
        for index, tensor in enumerate(longer):
            tensor[:filled, :, :held] = self._cache[index][:filled, :, :held]
            self._cache[index] = tensor


def _inputs(embeds: Embeds, before: Ids, counts: Ids) -> dict[str, Array]:
    """Of a call of embeds [k, S, D], of which the first `counts` [k] tokens of each row are real, over caches that hold `before` [k]."""
    rows, tokens, _ = embeds.shape
    after = before + counts
    return {
        "embeds": embeds,
        "places": np.arange(rows, dtype=np.int32) * np.int32(tokens) + counts - 1,
        "seqlens_k": after - 1,
        "total_sequence_length": np.array(after.max(), np.int32),
    }


def _by_modality(modalities: Sequence[Modality]) -> list[tuple[Modality, list[int]]]:
    """Each modality that there is, and its places."""
    return [(kind, [place for place, each in enumerate(modalities) if each == kind]) for kind in dict.fromkeys(modalities)]
