"""Session: sequences of any lengths over one KV cache, and what all kinds of session share.

Letters: R rows, k rows of one call, T tokens of a prompt, D hidden size, V ids, n drawn ids a step.
"""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import JanusError, NumericalError
from ..sampling.draw import Draw
from ..sampling.sampler import Floats, Ids
from .engine import Array, Modality, numerical_error

Embeds = NDArray[Any]
Table = TypeVar("Table", bound="RowTable")
RowLogits = Floats | NumericalError
"""Logits [V] of one row, or the error of a row whose numbers were NaN or Inf."""
Drawn = int | NumericalError
"""What one draw gave: an id, or the error of its rows."""

# Tokens of a prompt that one call takes on the host, counted from its row's start: attention rounds by what a call holds, over an int8
# cache visibly, so that a prompt is cut at the same places whoever else is there and wherever its computing began. A photo and a question
# take no longer than in one call (bench/NOTES.md, 18).
GRID = 32


def next_cut(position: int, end: int) -> int:
    """Where the call ends that computes a row from `position` on."""
    return min((position // GRID + 1) * GRID, end)


class Session(Protocol):
    """R rows. Each is free (length 0) or holds a sequence, and is filled, stepped and freed whatever the others do.

    A row takes and predicts the ids of its modality. NaN or Inf in a row is that row's error, in its place of what a call returns; its
    length stays, and the others go on. Any other failure raises and leaves every length as it was. Raises ValueError on rows, counts
    and lengths that do not fit, JanusError once closed. Use it in `with`, or call `close`.
    """

    uniform: bool
    """On a device: rows of one modality, those of a draw neighbours from a multiple of their number on, and prompts in whole. Otherwise
    rows of any kind anywhere, whose prompts are computed up to each multiple of `GRID` in a call of its own."""
    modalities: list[Modality]

    @property
    def rows(self) -> int: ...
    @property
    def lengths(self) -> Ids:
        """Tokens in each row [R]."""

    @property
    def max_length(self) -> int: ...

    def prefill(self, embeds: Sequence[Embeds], rows: Sequence[int], modality: Modality) -> list[RowLogits]:
        """Embedded prompts [T, D] of any lengths into these rows, after what they hold -> logits after each one's last token."""

    def fill(self, embeds: Sequence[Embeds], rows: Sequence[int]) -> Embeds:
        """`prefill` without a head -> hidden states [k, D]: for checks, whose embeddings need not be those of ids."""

    def step(self, ids: Ids, rows: Sequence[int] | None = None) -> list[RowLogits]:
        """One id [k] for each of these rows, by default for all that are filled -> logits after it."""

    def draw(self, logits: Sequence[Floats], rows: Sequence[int], draws: Sequence[Draw], limit: int) -> Iterator[list[Drawn]]:
        """Yields what each of the draws gives, `limit` steps at most: draws from logits [V] of each of these rows, of which a draw has
        the next `guidance.rows`, feeds its id back to them, draws again. The last ids are not in the cache until the next are asked for.
        Ends after a step in which a draw gave an error, so that the others begin anew. One such draw at a time."""

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        """Row `target` becomes a copy of the first `length` tokens of row `source`, by default of all."""

    def truncate(self, row: int, length: int = 0) -> None:
        """Forgets what a row holds beyond `length`; at 0 the row is free."""

    def close(self) -> None:
        """Gives the cache's memory back at once."""

    def row_bytes(self, length: int) -> int:
        """Of the cache of a row that holds `length` tokens."""

    def trim(self) -> None:
        """Gives memory back that no row holds now, where that can be done without moving rows."""

    def __enter__(self) -> "Session": ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class RowTable:
    """Lengths and modalities of R rows, and the checks of a call's arguments."""

    def __init__(self, rows: int, max_length: int) -> None:
        self.rows = rows
        self.max_length = max_length
        self.lengths = np.zeros(rows, np.int32)
        self.modalities: list[Modality] = ["text"] * rows
        self._closed = False

    def check_prefill(self, embeds: Sequence[Embeds], rows: Sequence[int]) -> Ids:
        """-> how many tokens each prompt has [k]."""
        self._check_rows(rows)
        if len(embeds) != len(rows) or not len(rows):
            raise ValueError(f"got {len(embeds)} prompts for {len(rows)} rows; expected one for each, and one at least")
        counts = np.array([len(row) for row in embeds], np.int32)
        if not counts.all():
            raise ValueError("got a prompt without tokens; expected one token or more in each")
        self._check_lengths(rows, counts)
        return counts

    def check_step(self, ids: Ids, rows: Sequence[int] | None) -> list[int]:
        """-> the rows that are stepped."""
        chosen = np.flatnonzero(self.lengths).tolist() if rows is None else list(rows)
        self._check_rows(chosen)
        if ids.shape != (len(chosen),):
            raise ValueError(f"got ids of shape {list(ids.shape)} for {len(chosen)} rows; expected one id for each")
        if not chosen:
            raise ValueError("got no row to step; prefill one first")
        if free := [row for row in chosen if not self.lengths[row]]:
            raise ValueError(f"row {free[0]} is free; prefill it before a step")
        self._check_lengths(chosen, np.ones(len(chosen), np.int32))
        return chosen

    def check_row(self, row: int) -> None:
        self._check_rows([row])

    def check_truncate(self, row: int, length: int) -> None:
        self.check_row(row)
        if not 0 <= length <= self.lengths[row]:
            raise ValueError(f"row {row} holds {self.lengths[row]} tokens; expected to keep 0 to as many, got {length}")

    def check_copy(self, source: int, target: int, length: int | None) -> int:
        """-> how many tokens are copied."""
        self._check_rows([source, target])
        held = int(self.lengths[source])
        if length is not None and not 0 <= length <= held:
            raise ValueError(f"row {source} holds {held} tokens; expected to copy 0 to as many, got {length}")
        return held if length is None else length

    def check_open(self) -> None:
        if self._closed:
            raise JanusError("this session is closed; open another")

    def close(self) -> None:
        self._closed = True
        self.lengths[:] = 0

    def __enter__(self: Table) -> Table:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check_rows(self, rows: Sequence[int]) -> None:
        self.check_open()
        if outside := [row for row in rows if not 0 <= row < self.rows]:
            raise ValueError(f"got row {outside[0]}; expected 0 to {self.rows - 1}")
        if len(set(rows)) < len(rows):
            raise ValueError(f"got rows {list(rows)}; expected each once")

    def _check_lengths(self, rows: Sequence[int], counts: Ids) -> None:
        for row, count in zip(rows, counts, strict=True):
            if self.lengths[row] + count > self.max_length:
                raise ValueError(f"row {row} would hold {self.lengths[row] + count} tokens; expected at most {self.max_length}")


def split_rows(logits: Floats, *checked: tuple[str, Array], when: str) -> list[RowLogits]:
    """Logits [k, V] row by row; an error for each row in which one of `checked`, (engine's name, its values [k, …]), is not finite."""
    rows: list[RowLogits] = list(logits)
    for engine, values in checked:
        for row in np.flatnonzero(~np.isfinite(values).reshape(len(rows), -1).all(axis=1)):
            if not isinstance(rows[row], NumericalError):
                rows[row] = numerical_error(engine, when)
    return rows


def errors_of_draws(rows: Sequence[RowLogits], counts: Sequence[int]) -> dict[int, NumericalError]:
    """By draw, the first error among the rows of each; draw i has the next `counts[i]` of them."""
    begins = np.cumsum([0, *counts]).tolist()
    found = {i: [row for row in rows[begins[i] : begins[i + 1]] if isinstance(row, NumericalError)] for i in range(len(counts))}
    return {index: errors[0] for index, errors in found.items() if errors}
