"""Sessions as tests and benchmarks use them: all rows of one modality, logits in one array; and when a model is idle."""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from janus_runtime.decoding.session import RowLogits, Session
from janus_runtime.errors import NumericalError
from janus_runtime.janus import Janus
from janus_runtime.sampling.draw import Draw
from janus_runtime.sampling.guidance import Guidance
from janus_runtime.sampling.sampler import Sampler


def stack_rows(rows: Sequence[RowLogits]) -> np.ndarray:
    """[k, V] where all rows have logits of one modality. Raises the error of the first that has none."""
    for row in rows:
        if isinstance(row, NumericalError):
            raise row
    return np.stack(rows)


def prefill(session: Session, embeds: Sequence[np.ndarray], modality: str, first: int = 0) -> np.ndarray:
    """Embedded prompts [T, D] into the rows from `first` on -> logits [k, V]. Raises NumericalError."""
    return stack_rows(session.prefill(embeds, range(first, first + len(embeds)), modality))


def step(session: Session, ids: np.ndarray) -> np.ndarray:
    """One id for every filled row -> logits [k, V]. Raises NumericalError."""
    return stack_rows(session.step(ids))


def draw(
    session: Session, logits: np.ndarray, limit: int, sampler: Sampler, seeds: Sequence[int], guidance: Guidance
) -> Iterator[np.ndarray]:
    """Draws of all filled rows from logits [k, V] -> ids [n] of each step. Raises NumericalError."""
    rows = np.flatnonzero(session.lengths).tolist()
    draws = [Draw(seed, 0, sampler, guidance) for seed in seeds]
    for drawn in session.draw(list(logits), rows, draws, limit):
        for each in drawn:
            if isinstance(each, NumericalError):
                raise each
        yield np.array(drawn, np.int32)


def wait_until_idle(janus: Janus) -> None:
    """Until no request runs or waits, and rows are given back."""
    while (status := janus.status()).running or status.waiting:
        time.sleep(0.001)
