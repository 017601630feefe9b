"""Session: row slots over one KV cache, and the loop that draws.

The only owner of the cache and of each row's length. Letters: R rows, k rows of one prefill, S new
tokens, M longest length, D hidden size, V ids, n drawn ids a step (R with no guidance, else R / 2).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import LanguageModel
from ..sampling.noise import Noise
from ..sampling.sampler import Floats, Ids, Sampler, guide, guide_from_image
from .engine import Binding, Engine, HostEngine, check_finite

Embeds = NDArray[Any]

# Tokens that a lone prompt is prefilled by at a time over an int8 cache, where attention computes a whole piece against all of
# its keys, those to come included: 616 tokens take 7 % less than in one piece (bench/NOTES.md, 8).
_PIECE = 256


class Session:
    """Keys and values of `rows` sequences, each with a length of its own.

    A slot is free (length 0) or holds a sequence. Slots can be filled and freed while others go on:
    a step runs all rows, and what it computes for a free one is dropped. The cache, [R, heads, capacity, head size]
    a layer, is bound as input and output of every call: a call never copies it. Its `capacity` is `max_length` from the
    start, or, if it `grows`, what the longest row holds and half as much again.
    """

    def __init__(
        self, language_model: HostEngine, embed: Engine, head: Engine, sizes: LanguageModel, rows: int, max_length: int, grows: bool = False
    ) -> None:
        self.language_model = language_model
        self.embed = embed
        self.head = head
        self.max_length = max_length
        self.lengths = np.zeros(rows, np.int32)
        self._cache_dtype = np.dtype(language_model.spec.inputs["past_key_0"].dtype)
        empty = np.zeros((rows, sizes.num_heads, 0, sizes.head_size), self._cache_dtype)
        self._cache = {f"{part}_{layer}": empty for layer in range(sizes.num_layers) for part in ("key", "value")}
        # Steps run all rows over all of the cache; tied once, its many tensors cost no time in a step.
        self._all_rows: Binding | None = None
        if not grows:
            self._allocate(max_length)
        self._piece = _PIECE if self._cache_dtype == np.int8 else max_length
        self._dtype = np.dtype(language_model.spec.inputs["embeds"].dtype)
        self._ids_name = next(iter(embed.spec.inputs))

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Tokens a row that the cache has room for now."""
        return int(self._cache["key_0"].shape[2])

    def prefill(self, embeds: Sequence[Embeds], slot: int = 0) -> Floats:
        """Sequences of embeddings [T, D] into slots `slot`, `slot` + 1, … -> logits [k, V] after each one's last token.

        Several may differ in length and must go into free slots; a single one may continue its slot.
        """
        hidden, counts = self._fill(embeds, slot)
        logits = self._logits(hidden, np.ones(len(embeds), bool))
        self.lengths[slot : slot + len(embeds)] += counts
        return logits

    def step(self, ids: Ids) -> Floats:
        """One id for every row [R], free rows too (theirs does not matter) -> logits [R, V].

        A step that fails leaves every length as it was, so that it can be tried again.
        """
        embeds = self.embed.run({self._ids_name: ids[:, None]})["embeds"]
        busy = self.lengths > 0
        logits = self._logits(self._run(embeds, np.ones(self.rows, np.int32), 0), busy)
        self.lengths += busy
        return logits

    def draw(
        self,
        logits: Floats,
        limit: int,
        sampler: Sampler,
        noise: Noise,
        cfg_weight: float | None = None,
        image_weight: float | None = None,
    ) -> Iterator[Ids]:
        """Yields the ids [n] of `limit` steps: draws, feeds them back, draws again.

        With `cfg_weight`, rows are pairs made by `sampling.pair` and both get the drawn id; with `image_weight` too, they come in
        threes, see `sampling.guide_from_image`. The last ids that were yielded are not in the cache until the next are asked for.
        """
        for step in range(limit):
            if cfg_weight is None:
                scores = logits
            elif image_weight is None:
                scores = guide(logits, cfg_weight)
            else:
                scores = guide_from_image(logits, cfg_weight, image_weight)
            ids = sampler(scores, None if sampler.greedy else noise(step))
            yield ids
            if step < limit - 1:
                logits = self.step(ids.repeat(len(logits) // len(ids)))

    def replicate(self, source: int, target: int) -> None:
        """Makes slot `target` a copy of slot `source`, cache and length."""
        length = self.lengths[source]
        for tensor in self._cache.values():
            tensor[target, :, :length] = tensor[source, :, :length]
        self.lengths[target] = length

    def truncate(self, slot: int, length: int = 0) -> None:
        """Forgets what `slot` holds beyond `length`; at 0 the slot is free."""
        self.lengths[slot] = length

    def extend(self, embeds: Sequence[Embeds], slot: int = 0) -> Embeds:
        """`prefill` without the head: -> hidden [k, D]."""
        hidden, counts = self._fill(embeds, slot)
        self.lengths[slot : slot + len(embeds)] += counts
        return hidden

    def advance(self, embeds: Embeds) -> Embeds:
        """`step` without embedding and head: [R, 1, D] -> hidden [R, D]."""
        hidden = self._run(embeds, np.ones(self.rows, np.int32), 0)
        self.lengths += self.lengths > 0
        return hidden

    def _fill(self, embeds: Sequence[Embeds], slot: int) -> tuple[Embeds, Ids]:
        """Pads the sequences on the right and runs them -> hidden [k, D] and how many tokens each has [k]."""
        counts = np.array([len(row) for row in embeds], np.int32)
        if len(embeds) == 1:
            return self._fill_one(embeds[0], slot), counts
        assert not self.lengths[slot : slot + len(embeds)].any(), "only a single row can continue a filled slot"
        padded = np.zeros((len(embeds), counts.max(), embeds[0].shape[-1]), self._dtype)
        for index, row in enumerate(embeds):
            padded[index, : len(row)] = row
        return self._run(padded, counts, slot), counts

    def _fill_one(self, row: Embeds, slot: int) -> Embeds:
        """A sequence [T, D], piece by piece -> hidden [1, D] of its last token. Lengths stay: a piece that fails undoes all."""
        before = self.lengths[slot]
        self._make_room(int(before) + len(row))
        try:
            for start in range(0, len(row), self._piece):
                piece = row[None, start : start + self._piece].astype(self._dtype, copy=False)
                hidden = self._run(piece, np.array([piece.shape[1]], np.int32), slot)
                self.lengths[slot] += piece.shape[1]
        finally:
            self.lengths[slot] = before
        return hidden

    def _run(self, embeds: Embeds, counts: Ids, slot: int) -> Embeds:
        """embeds [k, S, D], of which the first `counts` [k] tokens of each row are real -> hidden [k, D] of the last real one."""
        rows, tokens, _ = embeds.shape
        slots = slice(slot, slot + rows)
        lengths = self.lengths[slots] + counts
        self._make_room(int(lengths.max()))
        tied = self._all_rows if self._all_rows and rows == self.rows else self._tie(slots)
        inputs = {
            "embeds": embeds,
            "last_row": np.arange(rows, dtype=np.int32) * np.int32(tokens) + counts - 1,
            "seqlens_k": lengths - 1,
            "total_sequence_length": np.array(lengths.max(), np.int32),
        }
        return tied.run(inputs)["hidden"]

    def _make_room(self, length: int) -> None:
        """Grows the cache where it is shorter than `length`."""
        assert length <= self.max_length, f"{length} tokens in a cache of {self.max_length}"
        if length > self.capacity:
            self._allocate(min(length + length // 2, self.max_length))

    def _allocate(self, capacity: int) -> None:
        """Moves the cache to longer arrays, one tensor at a time. Out of memory, it stays as it was: raises MemoryError."""
        rows, heads, _, head_size = self._cache["key_0"].shape
        # The system hands out zeroed pages when they are first written, so all of them together cost nothing yet.
        longer = {name: np.zeros((rows, heads, capacity, head_size), self._cache_dtype) for name in self._cache}
        self._all_rows = None  # It holds the old arrays.
        held = self.lengths.max()
        for name, tensor in longer.items():
            tensor[:, :, :held] = self._cache[name][:, :, :held]
            self._cache[name] = tensor
        self._all_rows = self._tie(slice(0, rows))

    def _tie(self, slots: slice) -> Binding:
        """The decoder over the cache of these slots, read and written in place."""
        cache = {name: tensor[slots] for name, tensor in self._cache.items()}
        past, present = ({f"{when}_{name}": tensor for name, tensor in cache.items()} for when in ("past", "present"))
        return self.language_model.bind(past, present)

    def _logits(self, hidden: Embeds, used: NDArray[np.bool_]) -> Floats:
        """hidden [k, D] -> logits [k, V]. NaN or Inf in a `used` row [k] is an error that names the graph it came from."""
        logits: Floats = self.head.run({"hidden": hidden})["logits"]
        for engine, values in ((self.language_model, hidden), (self.head, logits)):
            check_finite(engine.name, values[used], f" after {self.lengths.max()} tokens")
        return logits
