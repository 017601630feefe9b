"""The Llama decoder. Letters: R rows, S new tokens, M cache length, D hidden, H heads, d head size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint.sizes import JanusConfig, TextConfig
from .attention import Attend, Attention
from .layers import Linear, RMSNorm


class DecoderLayer(nn.Module):
    def __init__(self, text: TextConfig, index: int, f: torch.dtype) -> None:
        super().__init__()
        name, width = f"model.language_model.layers.{index}", text.hidden_size
        qkv = [f"{name}.self_attn.{part}_proj" for part in "qkv"]
        self.attention_norm = RMSNorm(f, f"{name}.input_layernorm", width, text.norm_eps)
        self.qkv = Linear(f, qkv, width, width, bias=False)
        self.output = Linear(f, f"{name}.self_attn.o_proj", width, width, bias=False)
        self.mlp_norm = RMSNorm(f, f"{name}.post_attention_layernorm", width, text.norm_eps)
        self.gate_up = Linear(f, [f"{name}.mlp.gate_proj", f"{name}.mlp.up_proj"], width, text.mlp_size, bias=False)
        self.down = Linear(f, f"{name}.mlp.down_proj", text.mlp_size, width, bias=False)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """x [R, S, D]; `attend` takes merged qkv [R, S, 3D] to context [R, S, D]."""
        x = x + self.output(attend(self.qkv(self.attention_norm(x))))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def final_norm(text: TextConfig, f: torch.dtype) -> RMSNorm:
    return RMSNorm(f, "model.language_model.norm", text.hidden_size, text.norm_eps)


class LanguageModel(nn.Module):
    """All layers and the final norm in `f`, over one kind of attention (the flavour).

    `embeds` [R, S, D], `places` int32 [O], the flavour's own inputs, and the cache as key 0, value 0, key 1, … [R, H, M, d] ->
    `hidden` [O, D] of the tokens at `places`, row · S + token, and what the flavour gives of the cache.
    """

    def __init__(self, config: JanusConfig, f: torch.dtype, attention: Attention) -> None:
        super().__init__()
        text = config.text
        self.attention = attention
        self.dtype = f
        self.layers = nn.ModuleList(DecoderLayer(text, index, f) for index in range(text.num_layers))
        self.norm = final_norm(text, f)

    def forward(self, embeds: Tensor, places: Tensor, own: list[Tensor], cache: list[Tensor]) -> list[Tensor]:
        x, prepared = embeds.to(self.dtype), self.attention.prepare(own)
        given: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            past = cache[2 * index], cache[2 * index + 1]

            def attend(qkv: Tensor, past: tuple[Tensor, Tensor] = past) -> Tensor:
                context, key, value = self.attention(qkv, *past, prepared)
                given.extend((key, value))
                return context

            x = layer(x, attend)
        # Only the tokens that are asked for go through the norm and out.
        hidden = self.norm(x.flatten(0, 1).index_select(0, places))
        return [hidden.to(embeds.dtype), *given]
