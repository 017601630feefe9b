"""The small graphs around the decoder: ids in, logits out, and from logits to ids.

Letters: R rows, n pictures, T tokens, D hidden, V ids.
"""

import torch
from torch import Tensor, nn

from ..checkpoint.sizes import JanusConfig
from .layers import Embedding, Linear, Projector, gelu


class TextEmbed(nn.Module):
    """`text_ids` int32 [R, T] -> `embeds` [R, T, D]."""

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        text = config.text
        self.tokens = Embedding(f, "model.language_model.embed_tokens.weight", text.vocab_size, text.hidden_size)

    def forward(self, text_ids: Tensor) -> Tensor:
        return self.tokens(text_ids)


class ImageEmbed(nn.Module):
    """`image_ids` int32 [R, T] -> `embeds` [R, T, D]: a learned table (not the codebook), then the generation aligner."""

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        vq = config.required_vq
        self.tokens = Embedding(f, "model.generation_embeddings.weight", vq.num_ids, vq.code_size)
        self.aligner = Projector(f, "model.generation_aligner", vq.code_size, config.text.hidden_size, vq.aligner_depth)

    def forward(self, image_ids: Tensor) -> Tensor:
        return self.aligner(self.tokens(image_ids))


class TextHead(nn.Module):
    """`hidden` [R, D] -> `logits` fp32 [R, V]."""

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        self.head = Linear(f, "lm_head", config.text.hidden_size, config.text.vocab_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(hidden).float()


class ImageHead(nn.Module):
    """`hidden` [R, D] -> `logits` fp32 [R, V]: Linear, exact GELU, Linear."""

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        vq = config.required_vq
        self.project = Linear(f, "model.generation_head.proj_out", config.text.hidden_size, vq.head_size)
        self.head = Linear(f, "model.generation_head.vision_head", vq.head_size, vq.num_ids)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(gelu(self.project(hidden))).float()


class ImageDraw(nn.Module):
    """One guided draw, as `janus_runtime/sampling/sampler.py` makes it, and what the decoder sees of it.

    `logits` fp32 [n, 2, V], conditional first, `noise` fp32 [n, V], `cfg_weight` and `temperature` fp32 [n] ->
    `image_ids` int32 [n], `embeds` [n, 2, D]. Greedy is temperature 1 without noise; noise of -inf rules an id out.
    """

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        self.embed = ImageEmbed(config, f)

    def forward(self, logits: Tensor, noise: Tensor, cfg_weight: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        cond, uncond = logits[:, 0], logits[:, 1]
        scores = uncond + cfg_weight[:, None] * (cond - uncond)
        image_ids = (scores / temperature[:, None] + noise).argmax(-1).int()
        return image_ids, self.embed(image_ids)[:, None].expand(-1, 2, -1)


class TextDraw(nn.Module):
    """`logits`, `noise` fp32 [R, V], `temperature` fp32 [R] -> `text_ids` int32 [R], `embeds` [R, 1, D]. See `ImageDraw`."""

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        self.embed = TextEmbed(config, f)

    def forward(self, logits: Tensor, noise: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        text_ids = (logits / temperature[:, None] + noise).argmax(-1).int()
        return text_ids, self.embed(text_ids[:, None])
