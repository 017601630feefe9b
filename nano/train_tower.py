"""Stage 2: the vision tower, with a head thrown away afterwards that tells what each patch shows.

It stands in for SigLIP's own training: the decoder then starts from features that mean something, and does not have to
teach the tower to see through the few words of an answer. What the head does not ask for, features do not keep: asked for
looks only, they told the decoder little of where things are.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nano.model import GRID, PATCH, half_precision
from nano.progress import Stage, set_rate
from nano.scenes import BACKGROUNDS, COLOURS, MOST, RADII, SHAPES, Scene, coverage, render, sample
from nano.train_vq import pixels

STEPS = 1500
BATCH = 64
RATE = 2e-3
# Of the thing that covers a patch: colour, shape, size, row and column of its centre, each one of so many or nothing.
_OF_THINGS = (len(COLOURS) + 1, len(SHAPES) + 1, len(RADII) + 1, GRID + 1, GRID + 1)
# Of every patch: its own row and column, the background, the number of things in the picture.
ANSWERS = (*_OF_THINGS, GRID, GRID, len(BACKGROUNDS), MOST)


def patch_labels(scene: Scene) -> np.ndarray:
    """[GRID**2, len(ANSWERS)]: what each patch shows, by the thing that covers most of it, and where it lies."""
    labels = np.zeros((GRID, GRID, len(ANSWERS)), np.int64)
    most = np.full((GRID, GRID), 0.05, np.float32)
    for thing in scene.things:
        cover = coverage(thing.shape, RADII[thing.size], thing.x, thing.y).reshape(GRID, PATCH, GRID, PATCH).mean((1, 3))
        where = cover > most
        most[where] = cover[where]
        names = ((COLOURS, thing.colour), (SHAPES, thing.shape), (RADII, thing.size))
        look = [list(known).index(name) + 1 for known, name in names]
        labels[where, : len(_OF_THINGS)] = [*look, thing.y // PATCH + 1, thing.x // PATCH + 1]
    labels[..., -4] = np.arange(GRID)[:, None]
    labels[..., -3] = np.arange(GRID)
    labels[..., -2] = list(BACKGROUNDS).index(scene.background)
    labels[..., -1] = len(scene.things) - 1
    return labels.reshape(-1, len(ANSWERS))


class Teller(nn.Module):
    """A tower of that width, transformers' or JanusFlow's, and its throwaway head."""

    def __init__(self, tower: nn.Module, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(width, sum(ANSWERS))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        seen = self.tower(images)
        logits: Tensor = self.head(seen if isinstance(seen, Tensor) else seen.last_hidden_state)
        return logits.float().flatten(0, 1).split(ANSWERS, dim=-1)


def patch_loss(told: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Logits [N, each of ANSWERS] and labels [N, len(ANSWERS)] -> sum of the answers' mean cross-entropies."""
    return torch.stack([F.cross_entropy(logits, labels[:, i]) for i, logits in enumerate(told)]).sum()


def train(teller: Teller, stage: Stage, steps: int = STEPS) -> None:
    optimiser = torch.optim.AdamW(teller.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.01)
    for step in stage.steps(steps, model=teller, optimiser=optimiser):
        set_rate(optimiser, RATE, step, steps)
        scenes = [sample(stage.rng) for _ in range(BATCH)]
        labels = torch.tensor(np.concatenate([patch_labels(scene) for scene in scenes]))
        with half_precision():
            told = teller(pixels([render(scene) for scene in scenes]))
        loss = patch_loss(told, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(teller.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        right = torch.stack([logits.argmax(-1) == labels[:, i] for i, logits in enumerate(told)]).all(0)
        stage.report(loss=loss.item(), right=right.float().mean().item())
