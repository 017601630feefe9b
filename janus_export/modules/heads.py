"""The small graphs around the decoder: ids in, logits out. Letters: R rows, T tokens, D hidden, V ids."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import JanusConfig
from .layers import Embedding, Linear, Projector


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
        vq = config.vq
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
        vq = config.vq
        self.project = Linear(f, "model.generation_head.proj_out", config.text.hidden_size, vq.head_size)
        self.head = Linear(f, "model.generation_head.vision_head", vq.head_size, vq.num_ids)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(F.gelu(self.project(hidden))).float()
