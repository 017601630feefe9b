"""Stage 1 of nano-flow: the VAE. Pictures to 16 x 16 latents of 4 numbers, and back."""

import math

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from nano.model import half_precision
from nano.progress import Stage, set_rate
from nano.scenes import render, sample
from nano.train_vq import pixels

STEPS = 1500
BATCH = 8
RATE = 2e-3
KL = 3e-4  # weight of a nat of each latent, beside the squared error of a pixel
DECODER_STEPS = 2500
DECODER_RATE = 1e-3
OFF = 0.1  # of latents as the decoder alone learns them, which a flow does not draw exactly either


def train(vae: AutoencoderKL, stage: Stage, steps: int = STEPS) -> None:
    """Trains in place."""
    optimiser = torch.optim.AdamW(vae.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    for step in stage.steps(steps, model=vae, optimiser=optimiser):
        set_rate(optimiser, RATE, step, steps, least=0.01)
        images = pixels([render(sample(stage.rng)) for _ in range(BATCH)])
        with half_precision():
            seen = vae.encode(images).latent_dist
            drawn = vae.decode(seen.sample()).sample.float()
        error = (drawn - images).pow(2).mean()
        kl = seen.kl().mean() / seen.mean[0].numel()
        (error + KL * kl).backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        stage.report(psnr=10 * math.log10(4 / error.item()), nats=kl.item())


def train_decoder(vae: AutoencoderKL, stage: Stage, steps: int = DECODER_STEPS) -> None:
    """Trains the decoder alone, in place, for the means of the encoder, whose draws the first stage decodes."""
    decoder = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimiser = torch.optim.AdamW(decoder, DECODER_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    for step in stage.steps(steps, model=vae, optimiser=optimiser):
        set_rate(optimiser, DECODER_RATE, step, steps, least=0.01)
        pictures = [render(sample(stage.rng)) for _ in range(BATCH)]
        latents = to_latents(vae, pictures)
        with half_precision():
            drawn = decoded(vae, latents + OFF * torch.randn_like(latents))
        error = (drawn - pixels(pictures)).pow(2).mean()
        error.backward()
        nn.utils.clip_grad_norm_(decoder, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        stage.report(psnr=10 * math.log10(4 / error.item()))


def decoded(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Scaled latents [N, c, s, s] -> [N, 3, SIDE, SIDE]"""
    drawn: Tensor = vae.decode(latents / vae.config.scaling_factor).sample
    return drawn.float()


@torch.no_grad()
def to_latents(vae: AutoencoderKL, pictures: list[np.ndarray]) -> Tensor:
    """-> [N, c, s, s], scaled."""
    parts = []
    for start in range(0, len(pictures), BATCH):
        with half_precision():
            parts.append(vae.encode(pixels(pictures[start : start + BATCH])).latent_dist.mean.float())
    return torch.cat(parts) * vae.config.scaling_factor


def set_scale(vae: AutoencoderKL, seed: int) -> None:
    """So that latents have a mean square of about one, as noise has."""
    rng = np.random.default_rng([seed, 3])
    vae.register_to_config(scaling_factor=1.0)
    latents = to_latents(vae, [render(sample(rng)) for _ in range(200)])
    vae.register_to_config(scaling_factor=round(latents.pow(2).mean().item() ** -0.5, 3))
