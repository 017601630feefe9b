"""Stage 1: the VQ tokenizer. Pictures to 8 x 8 ids and back.

Cells of these scenes have fewer contents than there are ids, so each content is given an id of its own: the encoder
learns to name it, the decoder to draw what the ids say. Left to find ids by itself, the encoder hides in a cell's id
what it knows of the cells around, which the decoder-only model would have to learn as noise.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.janus.modeling_janus import JanusVQVAE

from nano.model import GRID, PATCH, half_precision
from nano.progress import Stage, set_rate
from nano.scenes import BACKGROUNDS, COLOURS, RADII, SHAPES, SIDE, Scene, Thing, render, sample

STEPS = 1200
BATCH = 16
RATE = 2e-3
SHARPNESS = 32.0  # of the choice among codes: what a cosine of one adds to a logit


def pixels(pictures: list[np.ndarray]) -> Tensor:
    """uint8 [SIDE, SIDE, 3] each -> [B, 3, SIDE, SIDE], -1 … 1."""
    return torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def cells(pictures: list[np.ndarray]) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3] each -> [B * GRID**2, PATCH * PATCH * 3], row-major."""
    return np.stack(pictures).reshape(-1, GRID, PATCH, GRID, PATCH, 3).swapaxes(2, 3).reshape(-1, PATCH * PATCH * 3)


class Contents:
    """Everything that a cell of a scene can show, in a fixed order: a content's place in it is its id."""

    def __init__(self) -> None:
        drawn = []
        for colour, shape, size, background in itertools.product(COLOURS, SHAPES, RADII, BACKGROUNDS):
            thing = Thing(colour, shape, size, SIDE // 2 + RADII[size], SIDE // 2 + RADII[size])
            drawn.append(render(Scene("one", (thing,), background, "")))
        self._ids = {content.tobytes(): index for index, content in enumerate(np.unique(cells(drawn), axis=0))}

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, pictures: list[np.ndarray]) -> Tensor:
        """-> [B * GRID**2]. Raises KeyError at a cell that no scene has."""
        return torch.tensor([self._ids[content.tobytes()] for content in cells(pictures)])


def encode(vq: JanusVQVAE, images: Tensor) -> Tensor:
    """[B, 3, S, S] -> unit vectors [B * GRID**2, code size], row-major."""
    latent = vq.quant_conv(vq.encoder(images)).float()
    return F.normalize(latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1]), dim=-1)


def likeness(vq: JanusVQVAE, vectors: Tensor) -> Tensor:
    """Unit vectors [N, code size] -> cosines to every code [N, ids]."""
    # Codes may lie closer together than bfloat16 tells apart near one.
    with torch.autocast(vectors.device.type, enabled=False):
        return vectors @ F.normalize(vq.quantize.embedding.weight, dim=-1).T


def decode(vq: JanusVQVAE, ids: Tensor) -> Tensor:
    """[B * GRID**2] -> [B, 3, S, S]."""
    codes = F.normalize(vq.quantize.embedding.weight, dim=-1)[ids]
    # Contiguous: torch is four times slower at the gradient of a group norm over channels last.
    grid = codes.reshape(-1, GRID, GRID, codes.shape[-1]).permute(0, 3, 1, 2).contiguous()
    return vq.decoder(vq.post_quant_conv(grid)).float()


def train(vq: JanusVQVAE, stage: Stage, steps: int = STEPS) -> None:
    """Trains in place."""
    contents = Contents()
    assert len(contents) <= vq.quantize.embedding.num_embeddings, "more contents than ids"
    optimiser = torch.optim.AdamW(vq.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    for step in stage.steps(steps, model=vq, optimiser=optimiser):
        set_rate(optimiser, RATE, step, steps, least=0.01)
        pictures = [render(sample(stage.rng)) for _ in range(BATCH)]
        images, ids = pixels(pictures), contents.ids(pictures)
        with half_precision():
            vectors, drawn = encode(vq, images), decode(vq, ids)
        scores = likeness(vq, vectors)
        error = (drawn - images).pow(2).mean()
        (error + F.cross_entropy(SHARPNESS * scores, ids)).backward()
        nn.utils.clip_grad_norm_(vq.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        stage.report(psnr=10 * math.log10(4 / error.item()), named_right=(scores.argmax(-1) == ids).float().mean().item())


@torch.no_grad()
def to_ids(vq: JanusVQVAE, pictures: list[np.ndarray]) -> Tensor:
    """-> [B, GRID**2]."""
    return likeness(vq, encode(vq, pixels(pictures))).argmax(-1).reshape(len(pictures), -1)


@torch.no_grad()
def redrawn(vq: JanusVQVAE, pictures: list[np.ndarray]) -> Tensor:
    """What the ids of pictures decode to, [B, 3, SIDE, SIDE]."""
    return decode(vq, to_ids(vq, pictures).reshape(-1))


def psnr(drawn: Tensor, pictures: list[np.ndarray]) -> float:
    """dB between pictures and what was drawn of them, over all pixels together, as 8-bit pictures."""
    error = ((drawn.clamp(-1, 1) + 1) * 127.5).round() - (pixels(pictures) + 1) * 127.5
    return 10 * math.log10(255**2 / error.pow(2).mean().item())
