"""Layers whose parameters carry the recipe of how they are stored."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janus_runtime.bundle.interface import DType

from ..checkpoint.tensor import Tensor as Stored
from ..recipes import FromCheckpoint, Recipe

# Of a product: the matrix's recipe, x [..., K] and the weight [K, N].
WatchProduct = Callable[[FromCheckpoint, Tensor, Tensor], None]


def parameter(recipe: Recipe, f: torch.dtype, device: str | None = None) -> nn.Parameter:
    """An uninitialised parameter of the recipe's shape; `recipes_of` finds the recipe again."""
    return _with_recipe(torch.empty(recipe.shape, dtype=f, device=device), recipe)


def _with_recipe(values: Tensor, recipe: Recipe) -> nn.Parameter:
    result = nn.Parameter(values, requires_grad=False)
    result.recipe = recipe  # type: ignore[attr-defined]  # an attribute of ours
    return result


def _recipe_of(value: nn.Parameter) -> Recipe:
    return value.recipe  # type: ignore[attr-defined]  # an attribute of ours


def recipes_of(module: nn.Module) -> dict[str, tuple[Recipe, torch.dtype]]:
    """Parameter name -> its recipe and stored dtype."""
    return {name: (_recipe_of(value), value.dtype) for name, value in module.named_parameters()}


def gelu(x: Tensor) -> Tensor:
    """0.5 · (x · (erf(x / √2) + 1)), in the one order of products in which ONNX Runtime takes it for one operator."""
    return 0.5 * (x * (torch.erf(x / math.sqrt(2)) + 1))


def dtype_name(f: torch.dtype) -> DType:
    return str(f).removeprefix("torch.")  # type: ignore[return-value]  # torch's names are the bundle's


def stream_weights(module: nn.Module, tensors: Mapping[str, Stored]) -> nn.Module:
    """Makes a module on the meta device run: each part reads its parameters when it is called and drops them after."""

    def fill(part: nn.Module, arguments: object) -> None:
        for name, value in part.named_parameters(recurse=False):
            recipe = _recipe_of(value)
            made = recipe.make(tensors, np.dtype(dtype_name(value.dtype)))
            setattr(part, name, _with_recipe(torch.from_numpy(made), recipe))

    def empty(part: nn.Module, arguments: object, result: object) -> None:
        for name, value in part.named_parameters(recurse=False):
            setattr(part, name, parameter(_recipe_of(value), value.dtype, "meta"))

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


def watch_products(module: nn.Module, watch: WatchProduct) -> nn.Module:
    """Has `watch` see every product of a `Linear` inside. Before `stream_weights`, which empties a part once it has run."""

    def see(part: Linear, arguments: tuple[Tensor, ...], result: object) -> None:
        recipe = _recipe_of(part.weight)
        assert isinstance(recipe, FromCheckpoint)
        watch(recipe, arguments[0], part.weight)

    for part in module.modules():
        if isinstance(part, Linear):
            part.register_forward_hook(see)
    return module


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
            x = layer(gelu(x))
        return x
