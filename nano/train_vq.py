"""Stage 1: the VQ tokenizer. Pictures to 8 x 8 ids and back, by squared error alone.

First without quantisation, until the encoder has something to say; then its outputs become the codes. Codes are moving
averages of the outputs nearest to them, on the unit sphere as Janus reads them; dead ones are replaced, for a while, by
outputs that fit no code well. Cells of one colour are drawn together: left alone, the encoder hides what it knows of the
edges in the ids of the background around them, which the decoder-only model would have to learn as noise.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.janus.modeling_janus import JanusVQVAE

from .model import GRID, half_precision
from .progress import Stage, set_rate
from .scenes import render, sample

STEPS = 4000
BATCH = 16
RATE = 2e-3
UNQUANTISED = 300
REPLACE_UNTIL = 2000
REPLACE_EVERY = 50
KEEP = 0.98  # of a code's average, each step
COMMIT = 0.25
FLAT = 50.0
FLAT_FROM, FLAT_TO = 800, 1600  # steps between which it grows; from the start, nothing else would be learned


def pixels(pictures: list[np.ndarray]) -> Tensor:
    """uint8 [SIDE, SIDE, 3] each -> [B, 3, SIDE, SIDE], -1 … 1."""
    return torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def encode(vq: JanusVQVAE, images: Tensor) -> Tensor:
    """[B, 3, S, S] -> unit vectors [B * GRID**2, code size], row-major."""
    latent = vq.quant_conv(vq.encoder(images)).float()
    return F.normalize(latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1]), dim=-1)


def nearest(vq: JanusVQVAE, vectors: Tensor) -> Tensor:
    """Unit vectors [N, code size] -> ids [N]."""
    # Codes lie closer together than bfloat16 tells apart near one.
    with torch.autocast(vectors.device.type, enabled=False):
        return (vectors @ F.normalize(vq.quantize.embedding.weight, dim=-1).T).argmax(-1)


def decode(vq: JanusVQVAE, vectors: Tensor) -> Tensor:
    """[B * GRID**2, code size] -> [B, 3, S, S]."""
    # Contiguous: torch is four times slower at the gradient of a group norm over channels last.
    grid = vectors.reshape(-1, GRID, GRID, vectors.shape[-1]).permute(0, 3, 1, 2).contiguous()
    return vq.decoder(vq.post_quant_conv(grid)).float()


def flat_spread(vectors: Tensor, images: Tensor) -> Tensor:
    """Mean squared distance of the vectors of cells of one colour to the mean of all such cells of that colour."""
    size = images.shape[-1] // GRID
    # [B, 3, rows, size, columns, size] -> [cells, pixels, 3]
    cells = images.reshape(-1, 3, GRID, size, GRID, size).permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, 3)
    flat = (cells == cells[:, :1]).all(2).all(1)
    _, colour = cells[flat, 0].unique(dim=0, return_inverse=True)
    chosen = vectors[flat]
    sums = torch.zeros(int(colour.max()) + 1, vectors.shape[1]).index_add_(0, colour, chosen)
    means = sums / torch.bincount(colour)[:, None]
    return (chosen - means[colour]).pow(2).sum(-1).mean()


class Codebook:
    """Moving averages behind the codes of `embedding` [ids, code size]."""

    def __init__(self, embedding: nn.Embedding) -> None:
        self.embedding = embedding
        self.counts = torch.ones(embedding.num_embeddings)
        self.sums = F.normalize(embedding.weight.detach().clone(), dim=-1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.counts, self.sums = state["counts"], state["sums"]

    def start(self, vectors: Tensor) -> None:
        """Codes spread over the given vectors: each new one far from those before it."""
        picked = [int(torch.randint(len(vectors), ()))]
        distance = 1 - vectors @ vectors[picked[0]]
        while len(picked) < self.embedding.num_embeddings:
            picked.append(int(torch.multinomial(distance.clamp(min=1e-7), 1)))
            distance = torch.minimum(distance, 1 - vectors @ vectors[picked[-1]])
        self._replace(torch.arange(len(picked)), vectors[picked])
        self._write()

    def update(self, vectors: Tensor, ids: Tensor) -> None:
        counts = torch.zeros_like(self.counts).index_add_(0, ids, torch.ones(len(ids)))
        sums = torch.zeros_like(self.sums).index_add_(0, ids, vectors)
        self.counts.lerp_(counts, 1 - KEEP)
        self.sums.lerp_(sums, 1 - KEEP)
        self._write()

    def revive(self, vectors: Tensor, ids: Tensor) -> int:
        """Dead codes move to vectors that lie far from theirs. -> how many."""
        dead = (self.counts < 0.02).nonzero()[:, 0]
        distance = 1 - (vectors * self.embedding.weight[ids]).sum(-1)
        dead = dead[: len(vectors) // 4]
        if len(dead):
            self._replace(dead, vectors[torch.multinomial(distance.clamp(min=1e-7), len(dead))])
            self._write()
        return len(dead)

    def _replace(self, ids: Tensor, vectors: Tensor) -> None:
        self.counts[ids] = 0.5
        self.sums[ids] = 0.5 * vectors

    def _write(self) -> None:
        self.embedding.weight.data.copy_(F.normalize(self.sums, dim=-1))


def train(vq: JanusVQVAE, stage: Stage, steps: int = STEPS) -> None:
    """Trains in place. The codebook has no gradient: its codes are averages."""
    vq.quantize.embedding.weight.requires_grad_(False)
    codebook = Codebook(vq.quantize.embedding)
    optimiser = torch.optim.AdamW([p for p in vq.parameters() if p.requires_grad], RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    for step in stage.steps(steps, model=vq, optimiser=optimiser, codebook=codebook):
        set_rate(optimiser, RATE, step, steps, least=0.02)
        images = pixels([render(sample(stage.rng)) for _ in range(BATCH)])
        with half_precision():
            vectors = encode(vq, images)
        if step == UNQUANTISED:
            with torch.no_grad():
                codebook.start(torch.cat([encode(vq, pixels([render(sample(stage.rng)) for _ in range(64)])) for _ in range(4)]))
        commit, chosen = torch.zeros(()), vectors
        if step >= UNQUANTISED:
            ids = nearest(vq, vectors.detach())
            codes = vq.quantize.embedding.weight[ids]
            commit = (vectors - codes).pow(2).sum(-1).mean()
            chosen = vectors + (codes - vectors).detach()
        with half_precision():
            drawn = decode(vq, chosen)
        error = (drawn - images).pow(2).mean()
        spread = flat_spread(vectors, images)
        together = FLAT * min(1, max(0, (step - FLAT_FROM) / (FLAT_TO - FLAT_FROM)))
        (error + COMMIT * commit + together * spread).backward()
        nn.utils.clip_grad_norm_([p for p in vq.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step >= UNQUANTISED:
            codebook.update(vectors.detach(), ids)
            if step < REPLACE_UNTIL and step % REPLACE_EVERY == 0:
                codebook.revive(vectors.detach(), ids)
        stage.report(psnr=10 * math.log10(4 / error.item()), commit=commit.item(), used=int((codebook.counts > 0.02).sum()))


@torch.no_grad()
def to_ids(vq: JanusVQVAE, pictures: list[np.ndarray]) -> Tensor:
    """-> [B, GRID**2]."""
    return nearest(vq, encode(vq, pixels(pictures))).reshape(len(pictures), -1)


@torch.no_grad()
def psnr(vq: JanusVQVAE, pictures: list[np.ndarray]) -> float:
    """dB between pictures and what their ids decode to, over all pixels together, as 8-bit pictures."""
    ids = to_ids(vq, pictures)
    drawn = decode(vq, F.normalize(vq.quantize.embedding.weight, dim=-1)[ids.reshape(-1)])
    error = ((drawn.clamp(-1, 1) + 1) * 127.5).round() - (pixels(pictures) + 1) * 127.5
    return 10 * math.log10(255**2 / error.pow(2).mean().item())
