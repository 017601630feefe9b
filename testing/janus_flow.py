"""JanusFlow in plain PyTorch, as published: the oracle of parity tests, the rival of benchmarks, and what a small one is trained as.

Modules bear the published names, so that a checkpoint loads as it is. After uvit.py, siglip_vit.py, modeling_vlm.py and the
loop of app_janusflow.py in deepseek-ai/Janus. b rows, n pictures, latents [c, s, s], a grid of g = s / 2 tokens a side,
C channels of the UViT, D of the language model, P of the prompt.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors import safe_open
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from janus_export.checkpoint.config import parse_config
from janus_export.checkpoint.sizes import FlowConfig, JanusConfig, TextConfig, VisionConfig

# A step's number, the latents it began with [n, c, s, s] and its velocities before guidance [2n, c, s, s].
OnStep = Callable[[int, Tensor, Tensor], None]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[k, tokens, width], every token sees every other."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class VisionBlock(nn.Module):
    def __init__(self, vision: VisionConfig) -> None:
        super().__init__()
        width = vision.hidden_size
        self.norm1 = nn.LayerNorm(width, vision.norm_eps)
        self.attn = Attention(width, vision.num_heads)
        self.norm2 = nn.LayerNorm(width, vision.norm_eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, vision.mlp_size), "fc2": nn.Linear(vision.mlp_size, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class VisionTower(nn.Module):
    """SigLIP (siglip_vit.py) without its pooling head, which JanusFlow stores and does not use."""

    def __init__(self, vision: VisionConfig) -> None:
        super().__init__()
        width = vision.hidden_size
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, vision.patch_size, vision.patch_size)})
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, vision.num_tokens, width))
        self.blocks = nn.Sequential(*(VisionBlock(vision) for _ in range(vision.num_layers)))
        self.norm = nn.LayerNorm(width, vision.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """[k, 3, S, S] -> [k, tokens, width], rows first."""
        patches = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(patches + self.pos_embed))


class ResponseNorm(nn.Module):
    """ConvNeXt V2's: a channel is scaled by its norm over the picture, relative to the other channels'. Identity when fresh."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[b, g, g, channels]"""
        size = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        relative = size / (size.mean(-1, keepdim=True) + 1e-6)
        return torch.addcmul(self.bias, self.weight * relative + 1, x)


class ConvNeXtBlock(nn.Module):
    """uvit.py's: the time acts after the residual sum, as scale and shift."""

    def __init__(self, channels: int, time_size: int, eps: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LlamaRMSNorm(channels, eps)
        self.channelwise_linear_1 = nn.Linear(channels, 4 * channels)
        self.channelwise_norm = ResponseNorm(4 * channels)
        self.channelwise_linear_2 = nn.Linear(4 * channels, channels)
        self.cond_embeds_mapper = nn.Linear(time_size, 2 * channels)

    def forward(self, x: Tensor, t_emb: Tensor) -> Tensor:
        """[b, channels, g, g], [b, D] -> [b, channels, g, g]"""
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inner = self.channelwise_norm(F.gelu(self.channelwise_linear_1(inner)))
        x = self.channelwise_linear_2(inner).permute(0, 3, 1, 2) + x
        scale, shift = self.cond_embeds_mapper(F.silu(t_emb)).chunk(2, dim=1)
        return torch.addcmul(shift[:, :, None, None], x, (1 + scale)[:, :, None, None])


class Blocks(nn.Module):
    def __init__(self, count: int, channels: int, time_size: int, eps: float) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(ConvNeXtBlock(channels, time_size, eps) for _ in range(count))

    def forward(self, x: Tensor, t_emb: Tensor) -> Tensor:
        for block in self.res_blocks:
            x = block(x, t_emb)
        return x


class Encoder(nn.Module):
    """uvit.py's ShallowUViTEncoder."""

    def __init__(self, flow: FlowConfig, width: int) -> None:
        super().__init__()
        channels = flow.channels
        self.time_embed = nn.ModuleDict({"linear_1": nn.Linear(channels, width), "linear_2": nn.Linear(width, width)})
        self.in_conv = nn.Conv2d(flow.vae.latent_channels, channels, flow.kernel, flow.stride, flow.kernel - flow.stride)
        self.mid_block = Blocks(flow.encoder_blocks, channels, width, flow.norm_eps)

    def embed_time(self, times: Tensor) -> Tensor:
        """[b] of 0 … 1000 -> [b, D]: cosines, then sines, of fp32 angles."""
        half, dtype = self.time_embed["linear_1"].in_features // 2, self.in_conv.weight.dtype
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=times.device) / half)
        angles = times[:, None].float() * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
        return self.time_embed["linear_2"](F.silu(self.time_embed["linear_1"](waves)))

    def forward(self, latents: Tensor, t_emb: Tensor) -> Tensor:
        """[b, c, s, s], [b, D] -> [b, C, g, g]"""
        return self.mid_block(self.in_conv(latents), t_emb)


class Unpatch(nn.Module):
    def __init__(self, channels: int, latent_channels: int, eps: float) -> None:
        super().__init__()
        self.norm = LlamaRMSNorm(channels, eps)
        self.unpatch_conv = nn.Conv2d(channels, 4 * latent_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, channels, g, g] -> [b, c, 2g, 2g]"""
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(self.unpatch_conv(x), 2)


class Decoder(nn.Module):
    """uvit.py's ShallowUViTDecoder with its one un-patching."""

    def __init__(self, flow: FlowConfig, width: int) -> None:
        super().__init__()
        both = 2 * flow.channels
        self.input_norm = LlamaRMSNorm(flow.channels, flow.norm_eps)
        self.mid_block = Blocks(flow.decoder_blocks, both, width, flow.norm_eps)
        self.out_convs = nn.ModuleList([Unpatch(both, flow.vae.latent_channels, flow.norm_eps)])

    def forward(self, x: Tensor, skip: Tensor, t_emb: Tensor) -> Tensor:
        """[b, g, g, C], [b, C, g, g], [b, D] -> [b, c, s, s]"""
        x = torch.cat([self.input_norm(x).permute(0, 3, 1, 2), skip], dim=1)
        return self.out_convs[0](self.mid_block(x, t_emb))


class JanusFlow(nn.Module):
    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        text, vision, flow = config.text, config.vision, config.flow
        assert flow is not None
        width = text.hidden_size
        self.grid = flow.grid
        self.vision_und_enc_model = nn.ModuleDict({"vision_tower": VisionTower(vision)})
        self.vision_und_enc_aligner = nn.Linear(vision.hidden_size, width)
        self.beg_of_und_embed = nn.Parameter(torch.zeros(1, width))
        self.vision_gen_enc_model = Encoder(flow, width)
        self.vision_gen_enc_aligner = nn.Linear(flow.channels, width)
        self.language_model = LlamaForCausalLM(_llama(text))
        self.vision_gen_dec_aligner_norm = LlamaRMSNorm(width, text.norm_eps)
        self.vision_gen_dec_aligner = nn.Linear(width, flow.channels)
        self.vision_gen_dec_model = Decoder(flow, width)

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> "JanusFlow":
        """A checkpoint with its VAE's config in `folder`/vae. In memory there is one copy of the weights, in `dtype`."""
        raw, vae_raw = (json.loads((path / "config.json").read_text()) for path in (folder, folder / "vae"))
        config = parse_config(raw, vae_raw)
        with torch.device("meta"):
            model = cls(config)
        weights = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                weights.update({name: file.get_tensor(name).to(dtype) for name in file.keys() if ".attn_pool." not in name})
        model.load_state_dict(weights, assign=True)
        # Its angles are in no checkpoint. Made anew they are fp32 whatever `dtype` is; the published scripts round them to bf16.
        model.language_model.model.rotary_emb = LlamaRotaryEmbedding(model.language_model.config)
        return model.eval()

    def time_embedding(self, times: Tensor) -> Tensor:
        """[b] of 0 … 1000 -> [b, D]"""
        return self.vision_gen_enc_model.embed_time(times)

    def encode(self, latents: Tensor, t_emb: Tensor) -> tuple[Tensor, Tensor]:
        """[b, c, s, s], [b, D] -> tokens [b, g·g, D], rows first, and what the decoder takes beside them [b, C, g, g]"""
        skip = self.vision_gen_enc_model(latents, t_emb)
        return self.vision_gen_enc_aligner(skip.flatten(2).transpose(1, 2)), skip

    def decode(self, hidden: Tensor, skip: Tensor, t_emb: Tensor) -> Tensor:
        """Final-normed states of the latents [b, g·g, D], and of `encode` -> velocity [b, c, s, s]"""
        aligned = self.vision_gen_dec_aligner(self.vision_gen_dec_aligner_norm(hidden))
        return self.vision_gen_dec_model(aligned.unflatten(1, (self.grid, self.grid)), skip, t_emb)

    def states(self, embeds: Tensor, mask: Tensor, latents: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `velocity` -> what `decode` takes."""
        t_emb = self.time_embedding(times)
        tokens, skip = self.encode(latents, t_emb)
        embeds = torch.cat([embeds, t_emb[:, None], tokens], dim=1)
        hidden = self.language_model.model(
            inputs_embeds=embeds,
            attention_mask=F.pad(mask, (0, 1 + tokens.shape[1]), value=1),
            position_ids=torch.arange(embeds.shape[1], device=embeds.device)[None],
            use_cache=False,
        ).last_hidden_state
        return hidden[:, -tokens.shape[1] :], skip, t_emb

    def velocity(self, embeds: Tensor, mask: Tensor, latents: Tensor, times: Tensor) -> Tensor:
        """The prompt without its last id [b, P, D], which of it is attended [b, P], [b, c, s, s], [b] -> [b, c, s, s]

        Causal, also among the latents. Positions are counted from 0 over what is masked, too.
        """
        return self.decode(*self.states(embeds, mask, latents, times))

    def see(self, pixels: Tensor) -> Tensor:
        """[k, 3, S, S] of -1 … 1 -> [k, 1 + tokens, D]: the learned beginning, then the picture"""
        features = self.vision_und_enc_aligner(self.vision_und_enc_model["vision_tower"](pixels))
        return torch.cat([self.beg_of_und_embed.expand(len(pixels), 1, -1), features], dim=1)


def times(steps: int, exact: bool = True) -> tuple[list[float], float]:
    """Every step's time of 0 … 1000 and the length of a step of 0 … 1; not `exact`: rounded to bf16, as published."""
    ideal = torch.tensor([*(1000 * step / steps for step in range(steps)), 1 / steps], dtype=torch.float64)
    *moments, length = (ideal if exact else ideal.to(torch.bfloat16)).tolist()
    return moments, length


@torch.inference_mode()
def draw(
    model: JanusFlow, ids: Tensor, noise: Tensor, *, pad_id: int, steps: int = 30, cfg_weight: float = 2.0, exact: bool = True,
    on_step: OnStep | None = None,
) -> Tensor:  # fmt: skip
    """The prompt's ids with the last, which only marks where the picture begins [T], noise [n, c, s, s] -> latents [n, c, s, s]

    As published it computes the prompt anew in every step. The state is fp32 in any dtype of the model; published: bf16.
    """
    count, prompt = len(noise), ids[:-1].repeat(2, 1)
    mask = torch.ones_like(prompt)
    prompt[1, 1:], mask[1, 1:] = pad_id, 0
    embeds = model.language_model.get_input_embeddings()(prompt).repeat_interleave(count, dim=0)
    mask = mask.repeat_interleave(count, dim=0)
    moments, length = times(steps, exact)
    latents = noise.float()
    for step, moment in enumerate(moments):
        rows = latents.to(embeds.dtype).repeat(2, 1, 1, 1)
        velocities = model.velocity(embeds, mask, rows, torch.full((2 * count,), moment, device=embeds.device)).float()
        if on_step is not None:
            on_step(step, latents, velocities)
        conditional, unconditional = velocities.chunk(2)
        latents = latents + length * (cfg_weight * conditional - (cfg_weight - 1) * unconditional)
    return latents


def vae(folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()


@torch.inference_mode()
def pixels(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """[n, c, s, s] -> [n, 3, H, W], mostly within -1 … 1"""
    return vae.decode(latents / vae.config.scaling_factor).sample


def _llama(text: TextConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        intermediate_size=text.mlp_size,
        num_hidden_layers=text.num_layers,
        num_attention_heads=text.num_heads,
        max_position_embeddings=text.max_length,
        rms_norm_eps=text.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": text.rope_theta},
        tie_word_embeddings=text.tied_head,
        # The default, 0.02, is of published widths; a narrow model would hardly move its residual stream.
        initializer_range=text.hidden_size**-0.5,
        attn_implementation="sdpa",
    )
