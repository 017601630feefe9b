"""What a rewritten graph stores: weights, which a recipe makes later, and small constants, whose values are known."""

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from ..recipes import Recipe

# Of a graph's weights: name -> recipe, and the name of the dtype it is stored in.
Recipes = dict[str, tuple[Any, Any]]


def add_weight(model: ir.Model, recipes: Recipes, name: str, recipe: Recipe, dtype: ir.DataType) -> ir.Value:
    """The weight `name`, which is there already where two nodes share it."""
    if name not in model.graph.initializers:
        model.graph.initializers[name] = ir.Value(name=name, shape=ir.Shape(recipe.shape), type=ir.TensorType(dtype))
        recipes[name] = (recipe, dtype.numpy().name)
    return model.graph.initializers[name]


def add_constant(model: ir.Model, name: str, value: NDArray[Any]) -> ir.Value:
    """The constant `name`, which all nodes of a graph share."""
    if name not in model.graph.initializers:
        tensor = ir.tensor(value, name=name)
        model.graph.initializers[name] = ir.Value(
            name=name, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
    return model.graph.initializers[name]
