"""The ids of one step, each drawn as its own picture or answer draws. Letters: V ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .guidance import Guidance
from .noise import gumbel
from .sampler import Floats, Sampler


@dataclass(frozen=True)
class Draw:
    """How one picture or answer draws. `first` is the number of its next draw, on which its noise depends beside the seed."""

    seed: int
    first: int
    sampler: Sampler
    guidance: Guidance


def draw_ids(logits: Sequence[Floats], draws: Sequence[Draw], step: int) -> list[int]:
    """Logits [V] of `guidance.rows` rows for each of the draws, in order -> one id each, `step` steps after its `first`."""
    begins = np.cumsum([0, *(draw.guidance.rows for draw in draws)]).tolist()
    alike: dict[tuple[Sampler, Guidance, int], list[int]] = {}
    for index, draw in enumerate(draws):
        alike.setdefault((draw.sampler, draw.guidance, len(logits[begins[index]])), []).append(index)
    ids = [0] * len(draws)
    for (sampler, guidance, num_ids), indices in alike.items():
        scores = guidance.mix(np.stack([logits[row] for index in indices for row in range(begins[index], begins[index + 1])]))
        noise = None
        if not sampler.greedy:
            noise = np.stack([gumbel(draws[index].seed, draws[index].first + step, num_ids) for index in indices])
        for index, drawn in zip(indices, sampler(scores, noise), strict=True):
            ids[index] = int(drawn)
    return ids
