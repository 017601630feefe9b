"""A stage of training: seeded, resumable, and telling how far it is."""

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from janus_runtime.errors import JanusError, first_line
from janus_runtime.whole_file import open_part, rename_over

SAVE_EVERY = 60  # seconds
TELL_EVERY = 10  # seconds


class Part(Protocol):
    """Something that a stage saves and goes on from: a model, an optimiser, a codebook."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def set_rate(
    optimiser: torch.optim.Optimizer, rate: float, step: int, steps: int, warm_up: int = 100, hold: float = 0.0, least: float = 0.0
) -> None:
    """A rise over `warm_up` steps, `rate` for a share `hold` of all, then a cosine down to its share `least` at the end."""
    fallen = max(0.0, (step / steps - hold) / (1 - hold))
    fall = least + (1 - least) * 0.5 * (1 + math.cos(math.pi * fallen))
    for group in optimiser.param_groups:
        group["lr"] = rate * min(1, (step + 1) / warm_up) * fall


class Stage:
    """Its file holds everything that the next step depends on; a step's random numbers follow from seed, stage and step."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.name, self.path, self.seed = name, folder / f"{name}.pt", seed
        self.rng = np.random.default_rng()
        self._figures: dict[str, float] = {}

    def done(self, model: torch.nn.Module) -> bool:
        """Loads the stage's outcome into `model` where the stage has ended before."""
        state = self._read()
        if state is None or not state["done"]:
            return False
        model.load_state_dict(state["model"])
        return True

    def steps(self, total: int, **parts: Part) -> Iterator[int]:
        """Yields the steps that are left, and saves `parts` as they pass; one of them is the `model`."""
        first = 0
        if (state := self._read()) is not None:
            first = state["step"]
            for name, part in parts.items():
                part.load_state_dict(state[name])
            print(f"{self.name}: going on at step {first}", file=sys.stderr)
        began = saved = told = time.monotonic()
        for step in range(first, total):
            key = [self.seed, *self.name.encode(), step]
            self.rng = np.random.default_rng(key)
            torch.manual_seed(int(self.rng.integers(2**31)))
            yield step
            now = time.monotonic()
            last = step + 1 == total
            if now - told >= TELL_EVERY or last:
                told, left = now, (now - began) / (step + 1 - first) * (total - step - 1)
                figures = "  ".join(f"{name} {value:.4g}" for name, value in self._figures.items())
                print(f"{self.name}: step {step + 1} of {total}, {left / 60:.1f} min left  {figures}", file=sys.stderr, flush=True)
            if now - saved >= SAVE_EVERY or last:
                saved = now
                state = {name: part.state_dict() for name, part in parts.items()}
                with open_part(self.path) as file:
                    torch.save({**state, "step": step + 1, "done": last}, file)
                    rename_over(file, self.path)

    def report(self, **figures: float) -> None:
        """What the next line of progress says: each figure's recent average."""
        for name, value in figures.items():
            self._figures[name] = 0.95 * self._figures.get(name, value) + 0.05 * value

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location=torch.get_default_device(), weights_only=True)
            return state
        except Exception as error:  # the unpickler raises many kinds
            raise JanusError(f"{self.path} is no state of a stage ({first_line(error)}); remove it to begin the stage again") from None
