"""HostSession: a session whose cache is NumPy's and whose decoder runs on the host. See `Session` for the contract.

Letters: R rows, L filled rows, k rows of one call, S new tokens, P places of the cache, D hidden size, V ids.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np

from ..errors import NumericalError
from ..sampling.draw import Draw, draw_ids
from ..sampling.sampler import Floats, Ids
from .engine import Array, Binding, HostEngine, Modality
from .engines import Engines
from .host_memory import HostMemory
from .session import Drawn, Embeds, RowLogits, RowTable, errors_of_draws, next_cut, split_rows


class HostSession(RowTable):
    """The cache is [slots, heads, P, head size] a layer and part, bound as input and output of every call: a call never copies it.

    It has room for `max_length` P tokens in each slot, which takes memory only where a token was written (`HostMemory`). Filled rows lie
    packed in the first L slots, those of a step before the others: a call takes neighbours.
    """

    uniform = False

    def __init__(self, engines: Engines, rows: int, max_length: int) -> None:
        super().__init__(rows, max_length)
        self._engines = engines
        language_model = cast(HostEngine, engines.language_model)
        assert language_model.spec.cache is not None
        self.language_model = language_model
        self._names = language_model.spec.cache
        self._cache_dtype = np.dtype(self._names.dtype)
        self._dtype = np.dtype(language_model.spec.inputs["embeds"].dtype)
        # The row in each slot, and the other way round.
        self._rows: list[int] = []
        self._slots: dict[int, int] = {}
        # Decoders bound to the slots of a call. A binding takes the addresses of many tensors, so those of steps are kept.
        self._bindings: dict[int, Binding] = {}
        self._memory = [HostMemory(self._shape(0), self._cache_dtype) for _ in self._names.inputs]

    @property
    def _cache(self) -> list[Array]:
        return [memory.array for memory in self._memory]

    def _shape(self, slots: int) -> tuple[int, int, int, int]:
        sizes = self._engines.manifest.language_model
        return slots, sizes.num_heads, self.max_length, sizes.head_size

    def row_bytes(self, length: int) -> int:
        _, heads, _, head_size = self._shape(1)
        return len(self._names.inputs) * heads * length * head_size * self._cache_dtype.itemsize

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
        with self._undone_on_error(rows, self.lengths.copy()):
            if counts.max() == 1 and self.lengths[list(rows)].all():
                hidden = self._step(np.stack(embeds).astype(self._dtype, copy=False), rows)
                self.lengths[list(rows)] += 1
                return hidden
            return np.concatenate([self._fill_row(row, each) for row, each in zip(rows, embeds, strict=True)])

    def step(self, ids: Ids, rows: Sequence[int] | None = None) -> list[RowLogits]:
        chosen = self.check_step(ids, rows)
        modalities = [self.modalities[row] for row in chosen]
        logits = self._predict(self._step(self._embed(ids, modalities), chosen), modalities)
        self.lengths[chosen] += [not isinstance(found, NumericalError) for found in logits]
        return logits

    def draw(self, logits: Sequence[Floats], rows: Sequence[int], draws: Sequence[Draw], limit: int) -> Iterator[list[Drawn]]:
        counts = [draw.guidance.rows for draw in draws]
        for step in range(limit):
            ids = draw_ids(logits, draws, step)
            yield list(ids)
            if step < limit - 1:
                found = self.step(np.repeat(ids, counts).astype(np.int32), rows)
                if failed := errors_of_draws(found, counts):
                    yield _draw_others(found, draws, failed, step + 1)
                    return
                logits = cast(list[Floats], found)

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        copied = self.check_copy(source, target, length)
        self._set_length(target, copied)
        if copied:
            self._copy_slot(self._slots[source], self._slots[target], copied)
        self.modalities[target] = self.modalities[source]

    def truncate(self, row: int, length: int = 0) -> None:
        self.check_truncate(row, length)
        self._set_length(row, length)

    def trim(self) -> None:
        held = [int(self.lengths[row]) for row in self._rows]
        for memory in self._memory:
            slots, heads, places, _ = memory.array.shape
            for slot, length in enumerate(held):
                for head in range(heads):
                    memory.forget((slot * heads + head) * places + length, (slot * heads + head + 1) * places, slots * heads * places)
            memory.forget(len(held), slots, slots)

    def close(self) -> None:
        super().close()
        self._bindings.clear()
        self._memory = []
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

    def _fill_row(self, row: int, embeds: Embeds) -> Embeds:
        """A sequence [T, D] after what the row holds, call by call -> hidden [1, D] of its last token."""
        start = int(self.lengths[row])
        position, end = start, start + len(embeds)
        while position < end:
            cut = next_cut(position, end)
            chunk = embeds[None, position - start : cut - start].astype(self._dtype, copy=False)
            before = np.array([position], np.int32)
            self._set_length(row, cut)
            hidden = self._bound(self._slots[row], 1).run(_inputs(chunk, before, np.array([cut - position], np.int32)))["hidden"]
            position = cut
        return hidden

    def _step(self, embeds: Embeds, rows: Sequence[int]) -> Embeds:
        """One token [k, 1, D] for each of these rows, whose lengths stay -> hidden [k, D]."""
        self._gather(rows)
        order = np.argsort([self._slots[row] for row in rows])
        before = self.lengths[[rows[place] for place in order]]
        hidden = np.empty((len(rows), embeds.shape[-1]), self._dtype)
        hidden[order] = self._bound(0, len(rows)).run(_inputs(embeds[order], before, np.ones(len(rows), np.int32)))["hidden"]
        return hidden

    def _gather(self, rows: Sequence[int]) -> None:
        """Moves these rows to the first slots, for one call to take them."""
        chosen = set(rows)
        others = (slot for slot, row in enumerate(self._rows[: len(rows)]) if row not in chosen)
        for row in rows:
            if self._slots[row] >= len(rows):
                self._swap(self._slots[row], next(others))

    def _swap(self, one: int, other: int) -> None:
        first, second = self._rows[one], self._rows[other]
        length = int(max(self.lengths[first], self.lengths[second]))
        for tensor in self._cache:
            kept = tensor[one, :, :length].copy()
            tensor[one, :, :length] = tensor[other, :, :length]
            tensor[other, :, :length] = kept
        self._rows[one], self._rows[other] = second, first
        self._slots[first], self._slots[second] = other, one

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
            self._make_room(len(self._rows) + 1)
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

    def _make_room(self, slots: int) -> None:
        """Doubles the slots where there are too few, one tensor at a time. Out of memory, they stay as they were: raises MemoryError."""
        if slots <= len(self._memory[0].array):
            return
        longer = [HostMemory(self._shape(min(2 * slots, self.rows)), self._cache_dtype) for _ in self._memory]
        self._bindings.clear()  # They hold the old arrays.
        for index, memory in enumerate(longer):
            for slot, row in enumerate(self._rows):
                held = int(self.lengths[row])
                memory.array[slot, :, :held] = self._memory[index].array[slot, :, :held]
            self._memory[index] = memory


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


def _draw_others(found: Sequence[RowLogits], draws: Sequence[Draw], failed: Mapping[int, NumericalError], step: int) -> list[Drawn]:
    """The ids of the draws that did not fail, from rows in the order of all draws, and the errors of the others."""
    owners = np.repeat(np.arange(len(draws)), [draw.guidance.rows for draw in draws])
    logits = [cast(Floats, row) for row, owner in zip(found, owners, strict=True) if int(owner) not in failed]
    ids = iter(draw_ids(logits, [draw for index, draw in enumerate(draws) if index not in failed], step))
    return [failed[index] if index in failed else next(ids) for index in range(len(draws))]


def _by_modality(modalities: Sequence[Modality]) -> list[tuple[Modality, list[int]]]:
    """Each modality that there is, and its places."""
    return [(kind, [place for place, each in enumerate(modalities) if each == kind]) for kind in dict.fromkeys(modalities)]
