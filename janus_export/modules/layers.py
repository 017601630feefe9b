"""Layers whose parameters carry the recipe of how they are stored."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint.checkpoint import Tensor as Stored
from ..recipes import FromCheckpoint, Recipe


def parameter(recipe: Recipe, f: torch.dtype, device: str | None = None) -> nn.Parameter:
    """An uninitialised parameter of the recipe's shape; `recipes_of` finds the recipe again."""
    result = nn.Parameter(torch.empty(recipe.shape, dtype=f, device=device), requires_grad=False)
    result.recipe = recipe  # type: ignore[attr-defined]
    return result


def recipes_of(module: nn.Module) -> dict[str, tuple[Recipe, torch.dtype]]:
    """Parameter name -> its recipe and stored dtype."""
    return {name: (value.recipe, value.dtype) for name, value in module.named_parameters()}  # type: ignore[misc]


def stream_weights(module: nn.Module, tensors: Mapping[str, Stored]) -> nn.Module:
    """Makes a module on the meta device run: each part reads its parameters when it is called and drops them after."""

    def fill(part: nn.Module, arguments: object) -> None:
        for name, value in part.named_parameters(recurse=False):
            made = value.recipe.make(tensors, np.dtype(str(value.dtype).removeprefix("torch.")))  # type: ignore[attr-defined]
            filled = nn.Parameter(torch.from_numpy(made), requires_grad=False)
            filled.recipe = value.recipe  # type: ignore[attr-defined]
            setattr(part, name, filled)

    def empty(part: nn.Module, arguments: object, result: object) -> None:
        for name, value in part.named_parameters(recurse=False):
            setattr(part, name, parameter(value.recipe, value.dtype, "meta"))  # type: ignore[attr-defined]

    for part in module.modules():
        if any(True for _ in part.parameters(recurse=False)):
            part.register_forward_pre_hook(fill)
            part.register_forward_hook(empty)
    return module


class Linear(nn.Module):
    """`x @ weight + bias`, weight [in, out]. Several names: upstream matrices that share their input, side by side."""

    def __init__(self, f: torch.dtype, names: str | Sequence[str], inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        names = [names] if isinstance(names, str) else names
        weights = tuple((f"{name}.weight", (outputs, inputs)) for name in names)
        self.weight = parameter(FromCheckpoint(weights, transposed=True), f)
        self.bias = parameter(FromCheckpoint(tuple((f"{name}.bias", (outputs,)) for name in names)), f) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


class Embedding(nn.Module):
    def __init__(self, f: torch.dtype, name: str, rows: int, columns: int) -> None:
        super().__init__()
        self.table = parameter(FromCheckpoint(((name, (rows, columns)),)), f)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table)


class LayerNorm(nn.Module):
    def __init__(self, name: str, size: int, eps: float) -> None:
        super().__init__()
        self.weight = parameter(FromCheckpoint(((f"{name}.weight", (size,)),)), torch.float32)
        self.bias = parameter(FromCheckpoint(((f"{name}.bias", (size,)),)), torch.float32)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias, self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """Square, mean and root in fp32, back to `f`, then the weight: Llama's order of rounding."""

    def __init__(self, f: torch.dtype, name: str, size: int, eps: float) -> None:
        super().__init__()
        self.weight = parameter(FromCheckpoint(((f"{name}.weight", (size,)),)), f)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # A root and a division, not rsqrt: the pattern that ONNX Runtime fuses into one kernel.
        wide = x.float()
        normal = wide / torch.sqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return normal.to(x.dtype) * self.weight


class Projector(nn.Module):
    """The aligners: Linear, then (exact GELU, Linear) as often as the depth says."""

    def __init__(self, f: torch.dtype, name: str, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.first = Linear(f, f"{name}.fc1", inputs, outputs)
        self.rest = nn.ModuleList(Linear(f, f"{name}.hidden_layers.{i}", outputs, outputs) for i in range(depth - 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.rest:
            x = layer(F.gelu(x))
        return x
