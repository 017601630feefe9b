"""nano-flow's sizes, and its parts with weights to start training from: janus-nano with JanusFlow's way of drawing."""

from dataclasses import replace

import torch
from diffusers import AutoencoderKL
from torch import nn

from janus_export.checkpoint.sizes import FlowConfig, JanusConfig, TextConfig, VaeConfig, VisionConfig
from nano.model import GRID, MAX_LENGTH, PATCH, start
from nano.scenes import SIDE
from testing.flow_layout import vae_config
from testing.janus_flow import JanusFlow

# Two halvings, so that a token, a patch of 2 x 2 latents, is a cell of the scenes.
_VAE = VaeConfig(latent_channels=4, widths=(32, 32, 64), num_res_blocks=1, scaling_factor=1.0)


def config(vocab_size: int, scaling_factor: float) -> JanusConfig:
    """1.9 million weights; every kind of block that JanusFlow has."""
    return JanusConfig(
        "multi_modality",
        TextConfig(vocab_size, 128, 384, 4, 4, MAX_LENGTH, 10000.0, 1e-6, tied_head=False),
        VisionConfig(96, 384, 3, 3, SIDE, PATCH, 1e-6, aligner_depth=1),
        flow=FlowConfig(64, 2, 2, 2, 2, 1e-6, GRID, replace(_VAE, scaling_factor=scaling_factor)),
    )


def build_vae(seed: int) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL.from_config(vae_config(_VAE))


def build(config: JanusConfig, seed: int) -> JanusFlow:
    """A model to train, whose weights start at the scale of their inputs, and whose velocity starts at nothing."""
    torch.manual_seed(seed)
    model = JanusFlow(config)
    # As in janus-nano.
    model.language_model.set_attn_implementation("eager")
    start(
        model.language_model.model, model.language_model.lm_head, model.vision_und_enc_aligner,
        model.vision_gen_enc_model.time_embed, model.vision_gen_enc_aligner, model.vision_gen_dec_aligner,
    )  # fmt: skip
    nn.init.normal_(model.beg_of_und_embed, std=0.5)
    nn.init.zeros_(model.vision_gen_dec_model.out_convs[0].unpatch_conv.weight)
    return model
