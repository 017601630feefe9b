"""One guided Euler step of JanusFlow, all of it: UViT, decoder, UViT, guidance, update.

Letters: n pictures, P new tokens of the prompt, M tokens of it in the cache, c latent channels, g a side of the grid,
S = P + 1 + g², D hidden, H heads, d head size. Each picture has two rows, conditional first.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_runtime.bundle.interface import MASKED, TensorSpec

from ..checkpoint.sizes import JanusConfig, TextConfig
from .attention import Part, Slice
from .language_model import DecoderLayer, final_norm
from .uvit import FlowDecoder, FlowEncoder, block_names

# Of the queries of a step's own tokens. Twice as many would leave out a sixteenth more.
_BLOCKS = 4


class PrefixAttention(Slice):
    """Causal attention of new tokens over the prompt, a cache that is only read: `Slice` of rows that come in pairs.

    qkv [n, 2, S, 3D], key and value [n, 2, H, M, d] -> context [n, 2, S, D], and the new tokens' keys and values [n, 2, H, S, d].
    A block of queries takes no key behind its last: of the products of a step with itself three eighths are left out.
    """

    flavour = "prefix"  # of no bundle: the name of the traced word alone

    def __init__(self, text: TextConfig, f: torch.dtype, step: int) -> None:
        """`step`: tokens that every call has, those of the time and the latents; a prompt before them goes with the first block."""
        super().__init__(text, f)
        sizes = [len(part) for part in np.array_split(np.arange(step), min(_BLOCKS, step))]
        # Where blocks end, counted from the last token.
        self.ends = [sum(sizes[index + 1 :]) for index in range(len(sizes))]

    def context(self, query: Tensor, past: Part, new: Part) -> Tensor:
        (key, value, mask), found, start = new, [], 0
        for left in self.ends:
            end = query.shape[-2] - left
            seen = key[..., :end, :], value[..., :end, :], mask[..., start:end, :end]
            found.append(super().context(query[..., start:end, :], past, seen))
            start = end
        return torch.cat(found, dim=-2)

    def shared(self, position_ids: Tensor, past_mask: Tensor, new_mask: Tensor) -> list[Tensor]:
        """Position ids [n, S], masks [n, 2, M] and [n, 2, S]: what all layers share."""
        order = torch.arange(position_ids.shape[1])
        causal = torch.where(order[None, :] <= order[:, None], 0.0, MASKED).to(new_mask.dtype)
        cos, sin = (F.embedding(position_ids, table)[:, None, None] for table in (self.cos, self.sin))
        # The lower of the two, so that a place that both rule out stays within fp16.
        return [cos, sin, past_mask[:, :, None, None], torch.minimum(causal, new_mask[:, :, None, None])]

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        f, _ = self.common()
        cache = TensorSpec(f, ("images", 2, self.num_heads, "max_length", self.head_size))
        angles = TensorSpec(f, ("images", 1, 1, "tokens", self.head_size // 2))
        return {
            "qkv": TensorSpec(f, ("images", 2, "tokens", 3 * self.num_heads * self.head_size)),
            "key": cache,
            "value": cache,
            "cos": angles,
            "sin": angles,
            "past_mask": TensorSpec(f, ("images", 2, 1, 1, "max_length")),
            "new_mask": TensorSpec(f, ("images", 2, 1, "tokens", "tokens")),
        }


class FlowStep(nn.Module):
    """`latents` fp32 [n, c, 2g, 2g] at a time -> `next_latents` a step `dt` later, and `velocity`, guided, that led there.

    The prompt goes in once, with the first step: `prefix_embeds` [n, 2, P, D] come before the time and the latents, and their
    keys and values `new_…` [n, 2, H, P, d] come out; later steps get these as `past_…`, and a prefix that is masked. `prefix_mask`
    [n, 2, P] and `past_mask` [n, 2, M] are 0 where there is a token and MASKED elsewhere: the unconditional row has BOS alone, and
    a batch's shorter prompts end early. `first_position` int32 [n] is the time's place, behind the prompt of either row: what is
    masked keeps its position. `time_embeds` [n, D] and `conditions` [n, ...] fp32 are each picture's row of `TimeEmbed`'s.
    `cfg_weight` and `dt` fp32 [n]. Guidance and update are in fp32 (reference: the published loop).
    """

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        text, flow = config.text, config.required_flow
        self.f = f
        self.sizes = [2 * channels for _, channels in block_names(flow)]
        self.encoder_blocks = flow.encoder_blocks
        self.encoder = FlowEncoder(config, f)
        self.attention = PrefixAttention(text, f, 1 + flow.grid**2)
        self.layers = nn.ModuleList(DecoderLayer(text, index, f) for index in range(text.num_layers))
        self.norm = final_norm(text, f)
        self.decoder = FlowDecoder(config, f)

    def forward(
        self,
        latents: Tensor,
        prefix: tuple[Tensor, Tensor],
        past_mask: Tensor,
        first_position: Tensor,
        time: tuple[Tensor, Tensor],
        settings: tuple[Tensor, Tensor],
        cache: list[Tensor],
    ) -> list[Tensor]:
        (prefix_embeds, prefix_mask), (time_embeds, conditions), (cfg_weight, dt) = prefix, time, settings
        parts = list(conditions.split(self.sizes, dim=-1))
        tokens, skip = self.encoder(latents, parts[: self.encoder_blocks])  # the same for both rows
        rows = prefix_embeds.shape[0], 2
        x = torch.cat(
            [
                prefix_embeds,
                time_embeds.to(self.f)[:, None, None].expand(*rows, 1, -1),
                tokens[:, None].expand(*rows, -1, -1),
            ],
            dim=2,
        )
        count, length = tokens.shape[1], prefix_embeds.shape[2]
        new_mask = F.pad(prefix_mask, (0, 1 + count))
        places = torch.arange(length, dtype=torch.int32)[None].expand(rows[0], -1)
        positions = first_position[:, None] + torch.arange(1 + count, dtype=torch.int32)
        prepared = self.attention.shared(torch.cat([places, positions], dim=1), past_mask, new_mask)
        given: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            past = cache[2 * index], cache[2 * index + 1]

            def attend(qkv: Tensor, past: tuple[Tensor, Tensor] = past) -> Tensor:
                context, key, value = self.attention(qkv, *past, prepared)
                given.extend((key[..., :length, :], value[..., :length, :]))
                return context

            x = layer(x, attend)
        hidden = self.norm(x[:, :, length + 1 :])
        both = skip[:, None].expand(-1, 2, -1, -1, -1)
        later = [part[:, None].expand(-1, 2, -1).flatten(0, 1) for part in parts[self.encoder_blocks :]]
        velocity = self.decoder(hidden.flatten(0, 1), both.flatten(0, 1), later)
        cond, uncond = velocity.float().unflatten(0, (-1, 2)).unbind(1)
        cfg_weight, dt = (each[:, None, None, None] for each in (cfg_weight, dt))
        guided = uncond + cfg_weight * (cond - uncond)
        return [latents + dt * guided, guided, *given]
