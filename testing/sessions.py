"""Sessions as tests and benchmarks use them: all rows of one modality, logits in one array."""

from collections.abc import Sequence

import numpy as np

from janus_runtime.decoding.session import Session, stack_rows


def prefill(session: Session, embeds: Sequence[np.ndarray], modality: str, first: int = 0) -> np.ndarray:
    """Embedded prompts [T, D] into the rows from `first` on -> logits [k, V]. Raises NumericalError."""
    return stack_rows(session.prefill(embeds, range(first, first + len(embeds)), modality))


def step(session: Session, ids: np.ndarray) -> np.ndarray:
    """One id for every filled row -> logits [k, V]. Raises NumericalError."""
    return stack_rows(session.step(ids))
