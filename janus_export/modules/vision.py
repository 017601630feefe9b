"""SigLIP tower and understanding aligner. Letters: k pictures, T patches, D width, H heads, d head size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint.sizes import JanusConfig, VisionConfig
from ..recipes import FromCheckpoint
from .layers import LayerNorm, Linear, Projector, gelu, parameter

_TOWER = "model.vision_model"


class VisionLayer(nn.Module):
    def __init__(self, vision: VisionConfig, index: int, f: torch.dtype) -> None:
        super().__init__()
        name, width = f"{_TOWER}.encoder.layers.{index}", vision.hidden_size
        self.num_heads = vision.num_heads
        self.attention_norm = LayerNorm(f"{name}.layer_norm1", width, vision.norm_eps)
        self.qkv = Linear(f, [f"{name}.self_attn.{part}_proj" for part in "qkv"], width, width)
        self.output = Linear(f, f"{name}.self_attn.projection_layer", width, width)
        self.mlp_norm = LayerNorm(f"{name}.layer_norm2", width, vision.norm_eps)
        self.up = Linear(f, f"{name}.mlp.fc1", width, vision.mlp_size)
        self.down = Linear(f, f"{name}.mlp.fc2", vision.mlp_size, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.output(self.attend(self.qkv(self.attention_norm(x))))
        return x + self.down(gelu(self.up(self.mlp_norm(x))))

    def attend(self, qkv: Tensor) -> Tensor:
        """Every patch sees every patch: [k, T, 3D] -> [k, T, D]."""
        images, patches, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        heads = qkv.view(images, patches, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        context = scores.float().softmax(-1).to(value.dtype) @ value
        return context.transpose(1, 2).reshape(images, patches, width)


class VisionEncoder(nn.Module):
    """`pixels` fp32 [k, 3, size, size] -> `embeds` [k, T, decoder width]. Patches are row-major; no pooling.

    JanusFlow's has a learned vector before the patches, which stands for begin-of-image.
    """

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        vision, embeddings = config.vision, f"{_TOWER}.embeddings"
        patch = (vision.hidden_size, 3, vision.patch_size, vision.patch_size)
        positions = (vision.num_tokens, vision.hidden_size)
        self.patch_size = vision.patch_size
        self.f = f
        self.patch = parameter(FromCheckpoint(((f"{embeddings}.patch_embedding.weight", patch),)), f)
        self.patch_bias = parameter(FromCheckpoint(((f"{embeddings}.patch_embedding.bias", patch[:1]),)), f)
        self.positions = parameter(FromCheckpoint(((f"{embeddings}.position_embedding.weight", positions),)), f)
        self.layers = nn.ModuleList(VisionLayer(vision, index, f) for index in range(vision.num_layers))
        self.norm = LayerNorm(f"{_TOWER}.post_layernorm", vision.hidden_size, vision.norm_eps)
        self.aligner = Projector(f, "model.aligner", vision.hidden_size, config.text.hidden_size, vision.aligner_depth)
        self.begin = parameter(FromCheckpoint((("beg_of_und_embed", (1, config.text.hidden_size)),)), f) if config.flow else None

    def forward(self, pixels: Tensor) -> Tensor:
        patches = F.conv2d(pixels.to(self.f), self.patch, self.patch_bias, stride=self.patch_size)
        x = patches.flatten(2).transpose(1, 2) + self.positions
        for layer in self.layers:
            x = layer(x)
        embeds = self.aligner(self.norm(x))
        if self.begin is None:
            return embeds
        return torch.cat([self.begin.expand(embeds.shape[0], 1, -1), embeds], dim=1)
