"""TokenLanes: pictures and answers that draw ids over one session. They join and leave at any step.

A row that is given back keeps what its prompt was computed to, until its place or its memory is needed: whoever begins with the same
tokens takes them from there. Letters: T tokens of a prompt, V ids.
"""

import itertools
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import NumericalError
from ..sampling.sampler import Floats
from .engine import numerical_error
from .lane import Counts, Lane, Prefix, Request, TokenLane, as_error
from .session import GRID, Drawn, RowLogits, Session, errors_of_draws, next_cut

# Prompts are computed for this many times as long as a step takes before the next step is: whoever joins waits half as long again as alone,
# and those who draw wait for these two steps and one call of the grid at most.
_PREFILL_SHARE = 2.0


@dataclass
class _Held:
    """Of a row: what it was prefilled with from its start, how far, and the logits after all of it."""

    prefix: Prefix
    computed: int = 0
    logits: Floats | None = None


class TokenLanes:
    """See `Lanes`. `retained`: bytes that rows given back may keep."""

    def __init__(self, session: Session, retained: int) -> None:
        self.session = session
        self._retained = retained
        # Of all that is held, as the last lane was told.
        self._memory: int | None = None
        # Rows that lanes and conversations have, and what rows hold, the least recently used first.
        self._owned: dict[int, int] = {}
        self._held: dict[int, _Held] = {}
        self._prefilling: list[TokenLane] = []
        self._ready: list[TokenLane] = []
        self._drawing: list[TokenLane] = []
        self._stream: Iterator[list[Drawn]] | None = None
        # The last step took so long.
        self._step_s = 0.0
        self.counts = Counts()

    @property
    def rows(self) -> int:
        return len(self._owned)

    @property
    def is_kept(self) -> bool:
        return not self.session.uniform

    @property
    def is_busy(self) -> bool:
        return bool(self._prefilling or self._ready or self._drawing)

    @property
    def cache_bytes(self) -> int:
        # `Scheduler.status` asks while the thread that runs moves rows from one to the other.
        owned = dict(self._owned)
        return sum(owned.values()) + self._kept_bytes(owned)

    def admit(self, lane: TokenLane, memory: int | None) -> bool:
        if not lane.rows:
            if lane.length > self.session.max_length:
                return False
            rows = self._choose(lane)
            needed = self.session.row_bytes(lane.length)
            own = sum(self._owned.values()) + needed * lane.num_rows
            if rows is None or (memory is not None and own > memory):
                return False
            self._memory = memory
            self._evict(needed * lane.num_rows, spared=rows)
            for row, (prefix, _) in zip(rows, lane.prompts, strict=True):
                self._begin(row, prefix)
                self._owned[row] = needed
            lane.rows = rows
            lane.cached_tokens = int(self.session.lengths[rows[0]])
        elif lane.base:
            # What came after is of no use: a turn that failed, or ids that nobody has read.
            self.session.truncate(lane.rows[0], lane.base)
        else:
            self._begin(lane.rows[0], lane.prompts[0][0])
        self._prefilling.append(lane)
        return True

    def advance(self) -> list[Lane]:
        # In any order and number of calls prompts and ids are the same, so time alone decides.
        began = time.perf_counter()
        self._prefill()
        while self._prefilling and time.perf_counter() - began < _PREFILL_SHARE * self._step_s:
            self._prefill()
        began = time.perf_counter()
        done = self._step()
        self._step_s = time.perf_counter() - began
        if not self.is_busy:
            self.session.trim()
        return done

    def drop(self, request: Request) -> None:
        for lane in [lane for lane in self._all() if lane.request is request]:
            self._remove(lane)

    def release(self, row: int) -> None:
        """A conversation gives its row back."""
        self._owned.pop(row, None)
        self._keep(row)

    def close(self) -> None:
        self._stream = None
        self.session.close()

    def _all(self) -> list[TokenLane]:
        return [*self._prefilling, *self._ready, *self._drawing]

    def _choose(self, lane: TokenLane) -> list[int] | None:
        """Free rows for a lane: those that hold its prompts or most of them, else empty ones, else those that were longest of no use."""
        count, session = lane.num_rows, self.session
        if session.uniform:
            starts = range(0, session.rows - count + 1, count)
            return next((list(range(s, s + count)) for s in starts if not any(s + i in self._owned for i in range(count))), None)
        kept = [row for row in self._held if row not in self._owned]
        empty = (row for row in range(session.rows) if row not in self._owned and row not in self._held)
        chosen: list[int | None] = []
        for prefix, _ in lane.prompts:
            best = max((row for row in kept if row not in chosen), key=lambda row: self._usable(row, prefix), default=None)
            # A row of which a part alone would serve, such as the words that all conversations begin with, stays for its own next turn.
            usable = 0 if best is None else self._usable(best, prefix)
            chosen.append(best if best is not None and usable and usable >= self._held[best].computed // GRID * GRID else None)
        others = itertools.chain(empty, (row for row in kept if row not in chosen))
        rows = [row if row is not None else next(others, None) for row in chosen]
        return None if None in rows else rows  # type: ignore[return-value]

    def _begin(self, row: int, prefix: Prefix) -> None:
        """The row's own tokens that serve this prompt stay."""
        usable = self._usable(row, prefix) if row in self._held else 0
        old = self._held.pop(row, None)
        self.session.truncate(row, usable)
        if not self.session.uniform:
            whole = old is not None and usable == len(prefix.ids)
            self._held[row] = _Held(prefix, usable, old.logits if old is not None and whole else None)
        self.counts.reused_tokens += usable

    def _usable(self, row: int, prefix: Prefix) -> int:
        """Tokens of a prompt that this row holds: all of them with the logits after them, or whole calls of the grid."""
        held = self._held[row]
        common = held.prefix.common(prefix)
        if held.logits is not None and common == len(prefix.ids) == len(held.prefix.ids):
            return common
        return min(common, held.computed, len(prefix.ids) - 1) // GRID * GRID

    def _prefill(self) -> None:
        if self.session.uniform:
            if self._prefilling:
                self._prefill_together(list(self._prefilling))
            return
        self._take_what_is_there()
        if not self._prefilling:
            return
        lane = self._prefilling[0]
        index = next(i for i in range(lane.num_rows) if not self._is_prefilled(lane, i))
        try:
            self._prefill_one(lane, index)
        except Exception as error:
            self._fail(lane, as_error(error))
        self._take_what_is_there()
        # Requests take turns; the lanes of one begin together in any case.
        self._prefilling.sort(key=lambda other: other.request is lane.request)

    def _is_prefilled(self, lane: TokenLane, index: int) -> bool:
        return lane.logits is not None and lane.logits[index] is not None

    def _prefill_one(self, lane: TokenLane, index: int) -> None:
        """The next call of one row of a lane."""
        row, (_, embeds) = lane.rows[index], lane.prompts[index]
        start, end = int(self.session.lengths[row]), lane.base + len(embeds)
        cut = next_cut(start, end)
        chunk = embeds[start - lane.base : cut - lane.base]
        self.counts.prefilled_tokens += len(chunk)
        if cut < end:
            hidden = self.session.fill([chunk], [row])
            # Keys of NaN would be taken over by others before their logits show it.
            if not np.isfinite(hidden).all():
                raise numerical_error("language_model", f" after {cut} tokens")
            if row in self._held and not lane.base:
                self._held[row].computed = cut
            return
        (found,) = self.session.prefill([chunk], [row], lane.modality)
        if isinstance(found, NumericalError):
            raise found
        if row in self._held and not lane.base:
            self._held[row].computed, self._held[row].logits = cut, found
        self._set_logits(lane, index, found)

    def _set_logits(self, lane: TokenLane, index: int, logits: Floats) -> None:
        if lane.logits is None:
            lane.logits = [None] * lane.num_rows  # type: ignore[list-item]
        lane.logits[index] = logits
        if all(found is not None for found in lane.logits):
            self._prefilling.remove(lane)
            self._ready.append(lane)

    def _take_what_is_there(self) -> None:
        """Copies for rows of prompts what other rows have computed meanwhile."""
        for lane in list(self._prefilling):
            for index, row in enumerate(lane.rows):
                if lane.base or self._is_prefilled(lane, index):
                    continue
                prefix, position = lane.prompts[index][0], int(self.session.lengths[row])
                source = max(self._held, key=lambda other: self._usable(other, prefix))
                usable = self._usable(source, prefix)
                if usable > position and source != row:
                    self.session.copy(source, row, usable)
                    self.counts.reused_tokens += usable - position
                    lane.cached_tokens += 0 if index else usable - position
                    self._held[row].computed = usable
                logits = self._held[source].logits
                if usable == len(prefix.ids) and logits is not None:
                    self.session.modalities[row] = lane.modality
                    self._held[row].logits = logits
                    self._set_logits(lane, index, logits)

    def _prefill_together(self, lanes: list[TokenLane]) -> None:
        """Whole prompts in one call; lanes of one prompt take copies."""
        first: dict[int, int] = {}
        rows: list[int] = []
        copies: list[tuple[int, int]] = []
        embeds = []
        for lane in lanes:
            for row, (_, each) in zip(lane.rows, lane.prompts, strict=True):
                if id(each) in first:
                    copies.append((first[id(each)], row))
                else:
                    first[id(each)] = row
                    rows.append(row)
                    embeds.append(each)
        self.counts.prefilled_tokens += sum(map(len, embeds))
        order = np.argsort(rows).tolist()
        try:
            found = self.session.prefill([embeds[i] for i in order], [rows[i] for i in order], lanes[0].modality)
            for source, target in copies:
                self.session.copy(source, target)
        except Exception as error:
            for lane in lanes:
                self._fail(lane, as_error(error))
            return
        logits = dict(zip([rows[i] for i in order], found, strict=True))
        logits |= {target: logits[source] for source, target in copies}
        for lane in lanes:
            self._prefilling.remove(lane)
            own: list[RowLogits] = [logits[row] for row in lane.rows]
            if errors := [each for each in own if isinstance(each, NumericalError)]:
                self._fail(lane, errors[0])
            else:
                lane.logits = own  # type: ignore[assignment]
                self._ready.append(lane)

    def _step(self) -> list[Lane]:
        """-> lanes that came to their end."""
        # The lanes of a request begin together, so that they go on in one call each.
        waiting = {id(lane.request) for lane in self._prefilling}
        if joining := [lane for lane in self._ready if id(lane.request) not in waiting]:
            self._ready = [lane for lane in self._ready if id(lane.request) in waiting]
            self._drawing += joining
            self._stream = None
        if not self._drawing:
            return []
        try:
            drawn = self._draw()
        except Exception as error:
            for lane in list(self._drawing):
                self._fail(lane, as_error(error))
            return []
        self.counts.steps += 1
        self.counts.stepped_rows += sum(lane.num_rows for lane in self._drawing)
        done: list[Lane] = []
        for lane, each in zip(list(self._drawing), drawn, strict=True):
            lane.logits = None
            if isinstance(each, NumericalError):
                self._fail(lane, each)
                continue
            lane.drawn.append(each)
            if not lane.request.take(lane, each) or len(lane.drawn) == lane.limit:
                self._remove(lane)
                done.append(lane)
        return done

    def _draw(self) -> list[Drawn]:
        """What the next draw of each lane gives."""
        if self._stream is None:
            errors = self._feed([lane for lane in self._drawing if lane.logits is None])
            lanes = self._drawing
            if errors:
                return [errors[id(lane)] if id(lane) in errors else self._draw_alone(lane) for lane in lanes]
            logits = [row for lane in lanes for row in lane.logits or ()]
            limit = min(lane.limit - len(lane.drawn) for lane in lanes)
            self._stream = self.session.draw(logits, [row for lane in lanes for row in lane.rows], [lane.draw for lane in lanes], limit)
        return next(self._stream)

    def _draw_alone(self, lane: TokenLane) -> Drawn:
        """One id of a lane beside others that failed before the draw of all could begin."""
        stream = self.session.draw(lane.logits or [], lane.rows, [lane.draw], 1)
        return next(stream)[0]

    def _feed(self, lanes: list[TokenLane]) -> dict[int, NumericalError]:
        """Steps lanes by what they drew last -> errors by lane."""
        if not lanes:
            return {}
        counts = [lane.num_rows for lane in lanes]
        ids = np.repeat([lane.drawn[-1] for lane in lanes], counts).astype(np.int32)
        found = self.session.step(ids, [row for lane in lanes for row in lane.rows])
        rows = iter(found)
        for lane, count in zip(lanes, counts, strict=True):
            lane.logits = list(itertools.islice(rows, count))  # type: ignore[arg-type]
        return {id(lanes[index]): error for index, error in errors_of_draws(found, counts).items()}

    def _fail(self, lane: TokenLane, error: Exception) -> None:
        for row in lane.rows:
            self._held.pop(row, None)
        self._remove(lane)
        lane.request.fail(error)

    def _remove(self, lane: TokenLane) -> None:
        self._stream = None
        for lanes in (self._prefilling, self._ready, self._drawing):
            if lane in lanes:
                lanes.remove(lane)
        if not lane.pinned:
            for row in lane.rows:
                del self._owned[row]
                self._keep(row)

    def _keep(self, row: int) -> None:
        """A row that nobody has: what it computed of its prompt stays."""
        held = self._held.pop(row, None)
        self.session.truncate(row, held.computed if held else 0)
        if held and held.computed:
            self._held[row] = held
            self._evict()

    def _kept_bytes(self, others: Collection[int]) -> int:
        """Of rows that are kept, without these others."""
        return sum(self.session.row_bytes(held.computed) for row, held in list(self._held.items()) if row not in others)

    def _evict(self, reserved: int = 0, spared: Sequence[int] = ()) -> None:
        """Forgets what rows without an owner hold, the least recently used first, until the rest may stay beside `reserved` bytes."""
        free = self._retained if self._memory is None else self._memory - sum(self._owned.values()) - reserved
        others = {*self._owned, *spared}
        for row in [row for row in self._held if row not in others]:
            if self._kept_bytes(others) <= min(self._retained, free):
                return
            del self._held[row]
            self.session.truncate(row)
