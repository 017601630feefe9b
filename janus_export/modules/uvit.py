"""JanusFlow's shallow UViT, which turns latents into tokens for the decoder and its answers into a velocity.

Letters: n pictures, B = 2n rows, C channels, g a side of the grid, D hidden size, s steps.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint.sizes import FlowConfig, JanusConfig
from ..recipes import FromCheckpoint
from .layers import Linear, RMSNorm, gelu, parameter

_ENCODER, _DECODER = "vision_gen_enc_model", "vision_gen_dec_model"


def block_names(flow: FlowConfig) -> list[tuple[str, int]]:
    """Upstream name and channels of every ConvNeXt block, in order of use."""
    encoder = [(f"{_ENCODER}.mid_block.res_blocks.{i}", flow.channels) for i in range(flow.encoder_blocks)]
    return encoder + [(f"{_DECODER}.mid_block.res_blocks.{i}", 2 * flow.channels) for i in range(flow.decoder_blocks)]


class TimeEmbed(nn.Module):
    """`times` fp32 [s], 0 to 1000 -> `time_embeds` fp32 [s, D], and `conditions` fp32 [s, sum of 2C]: scale and shift of every block.

    Everything that depends on the time alone, so that a picture's steps are tabulated at once.
    """

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        flow, width = config.required_flow, config.text.hidden_size
        self.num_frequencies = flow.channels // 2
        self.first = Linear(f, f"{_ENCODER}.time_embed.linear_1", flow.channels, width)
        self.second = Linear(f, f"{_ENCODER}.time_embed.linear_2", width, width)
        self.mappers = nn.ModuleList(Linear(f, f"{name}.cond_embeds_mapper", width, 2 * channels) for name, channels in block_names(flow))

    def forward(self, times: Tensor) -> tuple[Tensor, Tensor]:
        exponents = torch.arange(self.num_frequencies, dtype=torch.float32)
        frequencies = torch.exp(-math.log(10000) * exponents / self.num_frequencies)
        angles = times[:, None] * frequencies
        # Cosines come first (Timesteps with flip_sin_to_cos).
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        embeds = self.second(F.silu(self.first(waves)))
        given = F.silu(embeds)
        return embeds, torch.cat([mapper(given) for mapper in self.mappers], dim=-1)


class Block(nn.Module):
    """A ConvNeXt V2 block on maps [B, C, g, g], with a scale and a shift [B, 2C] after the residual (original `uvit.py`)."""

    def __init__(self, f: torch.dtype, name: str, channels: int, eps: float) -> None:
        super().__init__()
        self.channels = channels
        self.depthwise = parameter(FromCheckpoint(((f"{name}.depthwise.weight", (channels, 1, 7, 7)),)), f)
        self.depthwise_bias = parameter(FromCheckpoint(((f"{name}.depthwise.bias", (channels,)),)), f)
        self.norm = RMSNorm(f, f"{name}.norm", channels, eps)
        self.up = Linear(f, f"{name}.channelwise_linear_1", channels, 4 * channels)
        self.response = ResponseNorm(f"{name}.channelwise_norm", 4 * channels)
        self.down = Linear(f, f"{name}.channelwise_linear_2", 4 * channels, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = F.conv2d(x, self.depthwise, self.depthwise_bias, padding=3, groups=self.channels)
        h = h.flatten(2).transpose(1, 2)  # [B, g², C]
        h = self.down(self.response(gelu(self.up(self.norm(h)))))
        x = x + h.transpose(1, 2).view_as(x)
        scale, shift = condition.to(x.dtype)[..., None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


class ResponseNorm(nn.Module):
    """Global response norm over places, [B, g², C]: β + (γ · n + 1) · x, n a channel's length by the mean of all channels'. In fp32."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        self.weight = parameter(FromCheckpoint(((f"{name}.weight", (1, 1, 1, channels)),)), torch.float32)
        self.bias = parameter(FromCheckpoint(((f"{name}.bias", (1, 1, 1, channels)),)), torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(x.float(), dim=1, keepdim=True)
        scale = self.weight.flatten() * (lengths / (lengths.mean(-1, keepdim=True) + 1e-6)) + 1
        return scale.to(x.dtype) * x + self.bias.flatten().to(x.dtype)


class FlowEncoder(nn.Module):
    """Latents [n, c, 2g, 2g] and the conditions of its blocks -> tokens [n, g², D], row-major, and the map that skips the decoder."""

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        flow = config.required_flow
        kernel = (flow.channels, flow.vae.latent_channels, flow.kernel, flow.kernel)
        self.stride, self.padding = flow.stride, flow.kernel - flow.stride
        self.patch = parameter(FromCheckpoint(((f"{_ENCODER}.in_conv.weight", kernel),)), f)
        self.patch_bias = parameter(FromCheckpoint(((f"{_ENCODER}.in_conv.bias", kernel[:1]),)), f)
        names = block_names(flow)[: flow.encoder_blocks]
        self.blocks = nn.ModuleList(Block(f, name, channels, flow.norm_eps) for name, channels in names)
        self.aligner = Linear(f, "vision_gen_enc_aligner", flow.channels, config.text.hidden_size)

    def forward(self, latents: Tensor, conditions: list[Tensor]) -> tuple[Tensor, Tensor]:
        x = F.conv2d(latents.to(self.patch.dtype), self.patch, self.patch_bias, self.stride, self.padding)
        for block, condition in zip(self.blocks, conditions, strict=True):
            x = block(x, condition)
        return self.aligner(x.flatten(2).transpose(1, 2)), x


class FlowDecoder(nn.Module):
    """Hidden states [B, g², D], the skipping map [B, C, g, g] and the conditions of its blocks -> velocity [B, c, 2g, 2g]."""

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        flow, width = config.required_flow, config.text.hidden_size
        channels, latents = flow.channels, flow.vae.latent_channels
        self.align_norm = RMSNorm(f, "vision_gen_dec_aligner_norm", width, config.text.norm_eps)
        self.aligner = Linear(f, "vision_gen_dec_aligner", width, channels)
        self.norm = RMSNorm(f, f"{_DECODER}.input_norm", channels, flow.norm_eps)
        names = block_names(flow)[flow.encoder_blocks :]
        self.blocks = nn.ModuleList(Block(f, name, size, flow.norm_eps) for name, size in names)
        self.last_norm = RMSNorm(f, f"{_DECODER}.out_convs.0.norm", 2 * channels, flow.norm_eps)
        kernel = (4 * latents, 2 * channels, 1, 1)
        self.last = parameter(FromCheckpoint(((f"{_DECODER}.out_convs.0.unpatch_conv.weight", kernel),)), f)
        self.last_bias = parameter(FromCheckpoint(((f"{_DECODER}.out_convs.0.unpatch_conv.bias", kernel[:1]),)), f)

    def forward(self, hidden: Tensor, skip: Tensor, conditions: list[Tensor]) -> Tensor:
        x = self.norm(self.aligner(self.align_norm(hidden)))
        x = torch.cat([x.transpose(1, 2).view_as(skip), skip], dim=1)
        for block, condition in zip(self.blocks, conditions, strict=True):
            x = block(x, condition)
        x = self.last_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(F.conv2d(x, self.last, self.last_bias), 2)
