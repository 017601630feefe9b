"""Kinds of attention over a KV cache: one class a flavour of `language_model`.

A flavour says which inputs the graph gets beside embeddings and cache, what it gives back of the cache, and what it traces to.
Letters: R rows, S new tokens, M cache length, D hidden, H heads, d head size.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_runtime.bundle.interface import DType, TensorSpec, own_inputs

from ..checkpoint.sizes import TextConfig
from ..onnx.inline import DOMAIN
from ..recipes import RopeTable
from .layers import dtype_name, parameter

Attend = Callable[[Tensor], Tensor]
# Of what is attended to: keys and values [..., M, d], and a mask that is added to their scores.
Part = tuple[Tensor, Tensor, Tensor]


class Attention(nn.Module):
    """`attention(qkv [R, S, 3D], key, value [R, H, M, d], prepared)` -> context [R, S, D], and keys and values to give out.

    `prepared` is what `prepare` makes of the flavour's own inputs, once for all layers. Keys and values given out are all of
    the cache [R, H, M, d] if it is written `in_place`, else those of the new tokens [R, H, S, d], for the caller to write.
    """

    flavour: ClassVar[Any]
    opset: ClassVar[int]
    in_place: ClassVar[bool] = True
    cos: nn.Parameter
    sin: nn.Parameter

    def __init__(self, text: TextConfig, f: torch.dtype) -> None:
        super().__init__()
        self.num_heads, self.head_size = text.num_heads, text.head_size
        for function in ("cos", "sin"):
            table = RopeTable(function, text.max_length, text.head_size, text.rope_theta)
            self.register_parameter(function, parameter(table, f))

    def prepare(self, own: list[Tensor]) -> list[Tensor]:
        return own


class Traced(Attention):
    """A flavour of many operators: the decoder's trace has one word of ours in every layer, for what `attend` traces to."""

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        """What `attend` takes: qkv, key, value, and what `prepare` gives."""
        raise NotImplementedError

    def attend(self, qkv: Tensor, key: Tensor, value: Tensor, *prepared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Attention`."""
        raise NotImplementedError

    def forward(self, qkv: Tensor, key: Tensor, value: Tensor, prepared: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        *rows, tokens, width = qkv.shape
        given = (*rows, self.num_heads, tokens, self.head_size) if not self.in_place else key.shape
        context, key, value = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{self.flavour}",
            [qkv, key, value, *prepared],
            dtypes=[qkv.dtype] * 3,
            shapes=[(*rows, tokens, width // 3), given, given],
            version=1,
        )
        return context, key, value

    def common(self) -> tuple[DType, dict[str, TensorSpec]]:
        """The dtype of activations, and the tensors that every flavour attends over."""
        f = dtype_name(self.cos.dtype)
        cache = TensorSpec(f, ("rows", self.num_heads, "max_length", self.head_size))
        qkv = TensorSpec(f, ("rows", "tokens", 3 * self.num_heads * self.head_size))
        return f, {"qkv": qkv, "key": cache, "value": cache}

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[R, S, 3D] -> query, key, value [R, H, S, d]; of pairs of rows alike."""
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, self.head_size)).unbind(-3)
        return query.transpose(-3, -2), key.transpose(-3, -2), value.transpose(-3, -2)


class GroupQuery(Attention):
    """ONNX Runtime's GroupQueryAttention: rotates, appends in place and attends in one kernel, rows of any lengths.

    `seqlens_k` is each row's length after this call minus one. `total_sequence_length` is the longest length after
    this call; in a first call of several rows it must be S.
    """

    flavour = "gqa"
    opset = 21

    def forward(self, qkv: Tensor, key: Tensor, value: Tensor, prepared: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        rows, tokens, width = qkv.shape
        context, key, value = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [qkv, None, None, key, value, *prepared, self.cos, self.sin],
            attrs={"num_heads": self.num_heads, "kv_num_heads": self.num_heads, "do_rotary": 1},
            dtypes=[qkv.dtype] * 3,
            shapes=[(rows, tokens, width // 3), key.shape, value.shape],
            version=1,
        )
        return context, key, value


class GroupQueryCuda(GroupQuery):
    """The same beside integer weights on a GPU, where the operator knows no fp32."""

    flavour = "gqa_cuda"


class Slice(Traced):
    """Plain operators of opset 17. The cache is only read; the caller writes the new keys and values, a slice, into it.

    `past_mask` is 0 where a row's cache holds a token and MASKED elsewhere, `new_mask` the same among the new tokens.
    """

    flavour = "slice"
    opset = 17
    in_place = False

    def prepare(self, own: list[Tensor]) -> list[Tensor]:
        position_ids, past_mask, new_mask = own
        # [R, 1, S, d / 2], the same for all heads.
        return [F.embedding(position_ids, self.cos)[:, None], F.embedding(position_ids, self.sin)[:, None], past_mask, new_mask]

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        f, common = self.common()
        angles, own = TensorSpec(f, ("rows", 1, "tokens", self.head_size // 2)), own_inputs("slice", f)
        return {**common, "cos": angles, "sin": angles, "past_mask": own["past_mask"], "new_mask": own["new_mask"]}

    def attend(self, qkv: Tensor, key: Tensor, value: Tensor, *prepared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cos, sin, past_mask, new_mask = prepared
        query, new_key, new_value = self.split(qkv)
        # Scaled before the product, which in fp16 could overflow.
        query, new_key = rotate(query, cos, sin) * self.head_size**-0.5, rotate(new_key, cos, sin)
        context = self.context(query, (key, value, past_mask), (new_key, new_value, new_mask))
        return context.transpose(-3, -2).flatten(-2), new_key, new_value

    def context(self, query: Tensor, past: Part, new: Part) -> Tensor:
        """Scaled queries [..., S, d] over both parts of the keys -> [..., S, d]. Two products and one softmax, in fp32: keys and
        values are never copied side by side."""
        scores = [query @ key.transpose(-1, -2) + mask for key, _, mask in (past, new)]
        weights = torch.cat(scores, dim=-1).float().softmax(-1).to(query.dtype)
        length = past[0].shape[-2]
        return weights[..., :length] @ past[1] + weights[..., length:] @ new[1]


class InPlace(Traced):
    """Opset 24: `TensorScatter` writes each row's new tokens at `write_indices`, `Attention` sees what `attn_mask` allows.

    TensorRT drops the lengths that `Attention` can be given, so the mask says all; it refuses to be told the softmax's precision,
    which is fp32 in its kernels (reference: ONNX operators, opset 24).
    """

    flavour = "inplace"
    opset = 24

    def prepare(self, own: list[Tensor]) -> list[Tensor]:
        return [self.cos, self.sin, *own]

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        f, common = self.common()
        table = TensorSpec(f, tuple(self.cos.shape))
        return {**common, "cos": table, "sin": table, **own_inputs("inplace", f)}

    def attend(self, qkv: Tensor, key: Tensor, value: Tensor, *prepared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cos, sin, position_ids, write_indices, attn_mask = prepared
        query, new_key, new_value = self.split(qkv)

        def rotated(x: Tensor) -> Tensor:
            return _onnx("RotaryEmbedding", [x, cos, sin, position_ids], x, 23)

        def written(cache: Tensor, new: Tensor) -> Tensor:
            return _onnx("TensorScatter", [cache, new, write_indices], cache, 24, axis=2)

        key, value = written(key, rotated(new_key)), written(value, new_value)
        context = _onnx("Attention", [rotated(query), key, value, attn_mask], query, 24)
        return context.transpose(1, 2).flatten(2), key, value


def _onnx(operator: str, inputs: list[Tensor], like: Tensor, since: int, **attributes: int) -> Tensor:
    """A standard operator that torch has no word for. The output is shaped as `like`."""
    return torch.onnx.ops.symbolic(operator, inputs, {**attributes}, dtype=like.dtype, shape=like.shape, version=since)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE turns pairs (i, i + d/2), as Llama does."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def causal_attention(text: TextConfig, qkv: Tensor, seen: Tensor | None = None) -> Tensor:
    """The reference: whole sequences from position 0, no cache. qkv [R, T, 3D] -> context [R, T, D]. `seen` bool [R, T] masks the rest."""
    rows, tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    query, key, value = qkv.view(rows, tokens, 3, text.num_heads, text.head_size).permute(2, 0, 3, 1, 4)
    cos, sin = (
        torch.from_numpy(RopeTable(name, tokens, text.head_size, text.rope_theta).make({}, np.dtype(np.float32))).to(qkv.dtype)
        for name in ("cos", "sin")
    )
    mask = None if seen is None else torch.ones(tokens, tokens, dtype=torch.bool).tril() & seen[:, None, None]
    context = F.scaled_dot_product_attention(rotate(query, cos, sin), rotate(key, cos, sin), value, mask, is_causal=mask is None)
    return context.transpose(1, 2).reshape(rows, tokens, width)
