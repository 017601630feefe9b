"""Kinds of attention over a KV cache: one class a flavour of `language_model`.

A flavour says which inputs the graph gets beside embeddings and cache, and what it traces to.
Letters: R rows, S new tokens, M cache length, D hidden, H heads, d head size.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_runtime.manifest import TensorSpec

from ..config import TextConfig
from ..recipes import RopeTable
from .layers import parameter

Attend = Callable[[Tensor], Tensor]


class Attention(nn.Module):
    """`attention(qkv [R, S, 3D], key, value [R, H, M, d], own inputs)` -> context [R, S, D], key, value after."""

    flavour: ClassVar[str]
    opset: ClassVar[int]
    inputs: ClassVar[dict[str, TensorSpec]]


class GroupQuery(Attention):
    """ONNX Runtime's GroupQueryAttention: rotates, appends in place and attends in one kernel, rows of any lengths.

    `seqlens_k` is each row's length after this call minus one. `total_sequence_length` is the longest length after
    this call; in a first call of several rows it must be S.
    """

    flavour = "gqa"
    opset = 21
    inputs = {
        "seqlens_k": TensorSpec("int32", ("rows",)),
        "total_sequence_length": TensorSpec("int32", ()),
    }

    def __init__(self, text: TextConfig, f: torch.dtype) -> None:
        super().__init__()
        self.num_heads = text.num_heads
        for function in ("cos", "sin"):
            table = RopeTable(function, text.max_length, text.head_size, text.rope_theta)
            self.register_parameter(function, parameter(table, f))

    def forward(self, qkv: Tensor, key: Tensor, value: Tensor, own: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        rows, tokens, width = qkv.shape
        context, key, value = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [qkv, None, None, key, value, *own, self.cos, self.sin],
            attrs={"num_heads": self.num_heads, "kv_num_heads": self.num_heads, "do_rotary": 1},
            dtypes=[qkv.dtype] * 3,
            shapes=[(rows, tokens, width // 3), key.shape, value.shape],
            version=1,
        )
        return context, key, value


def causal_attention(text: TextConfig, qkv: Tensor) -> Tensor:
    """The reference: whole sequences from position 0, no cache. qkv [R, T, 3D] -> context [R, T, D].

    RoPE turns pairs (i, i + d/2), as Llama does.
    """
    rows, tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    query, key, value = qkv.view(rows, tokens, 3, text.num_heads, text.head_size).permute(2, 0, 3, 1, 4)
    cos, sin = (
        torch.from_numpy(RopeTable(name, tokens, text.head_size, text.rope_theta).make({}, "float32")).to(qkv.dtype)
        for name in ("cos", "sin")
    )

    def rotate(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    context = F.scaled_dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
    return context.transpose(1, 2).reshape(rows, tokens, width)
