"""Graphs of an fp16 bundle -> the same graphs in bf16 or with int4 matrices, for TensorRT alone. No torch.

A strongly typed network takes its types from the file, so the file is what changes. Weights are made while they are written,
one tensor at a time.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from janus_runtime.bundle.manifest import Graph, TensorSpec

from .builder import Weights

# The first opset with integers of four bits and scales of a block, and the file format of its day.
_OPSET, _IR_VERSION = 21, 10
# The largest for which TensorRT documents a product that unpacks by itself.
_BLOCK = 128
_LARGEST = 7  # of a code; the eighth below zero has no partner above, and scales must be positive
# Whatever is smaller is nothing beside other weights, and of fp16 scales below it too few bits are left to round by.
_SMALLEST_SCALE = 2.0**-20
_CACHE = re.compile(r"(past|new|present)_(key|value)_\d+")

# What the decoder's stream of bf16 goes through. Ids are embedded alike, whether the host knows them or the device drew them.
_IN_BF16 = {"language_model", "text_head", "image_head", "text_draw", "image_draw", "text_embed", "image_embed"}
# What is read whole at every step and large.
_IN_INT4 = {"language_model", "text_head"}
_REWRITTEN: dict[Weights, set[str]] = {"fp16": set(), "bf16": _IN_BF16, "int4": _IN_INT4}

Array = NDArray[Any]


def rewritten(name: str, path: Path, weights: Weights) -> ir.Model | None:
    """The graph `name` of an fp16 bundle, at `path`, with other weights, which are read when it is saved. None: it stays as it is."""
    if name.split(".")[0] not in _REWRITTEN[weights]:
        return None
    model = ir.load(path)
    (_to_bf16 if weights == "bf16" else _to_int4)(model)
    return model


def interface(name: str, graph: Graph, weights: Weights) -> Graph:
    """What the plan of a graph takes and gives: as in the bundle, but for a cache in bf16, which is as large as one in fp16."""
    if weights != "bf16" or name.split(".")[0] not in _IN_BF16:
        return graph

    def of_plan(specs: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
        return {key: replace(spec, dtype="bfloat16") if _CACHE.fullmatch(key) else spec for key, spec in specs.items()}  # type: ignore[arg-type]

    return replace(graph, inputs=of_plan(graph.inputs), outputs=of_plan(graph.outputs))


def bytes_of(model: ir.Model) -> int:
    """Of all weights, once saved."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def save(model: ir.Model, path: Path) -> None:
    """Writes the graph to `path` and its weights beside it. Raises OSError."""
    ir.save(model, path, external_data=path.with_suffix(".data").name)


def scales_of(matrix: Array, block: int) -> NDArray[np.float16]:
    """[in, out] -> [in / block, out]: with it the block's largest magnitude is the largest code."""
    largest = [np.abs(matrix[start : start + block]).max(0) for start in range(0, len(matrix), block)]
    return np.maximum(np.stack(largest).astype(np.float32) / _LARGEST, _SMALLEST_SCALE).astype(np.float16)


def codes_of(matrix: Array, block: int) -> Array:
    """[in, out] -> int4 [in, out], to nearest; weight = code * scale of its block."""
    codes = np.empty(matrix.shape, np.int8)
    for index, scales in enumerate(scales_of(matrix, block).astype(np.float32)):
        rows = slice(index * block, (index + 1) * block)
        codes[rows] = np.clip(np.rint(matrix[rows] / scales), -_LARGEST, _LARGEST)
    return codes.view(ir.DataType.INT4.numpy())


def _to_int4(model: ir.Model) -> None:
    """Every product's stored matrix [in, out] becomes codes, their scales along `in` and a DequantizeLinear. Activations stay fp16."""
    _raise_opset(model)
    for name, matrix in list(model.graph.initializers.items()):
        if not all(user.op_type == "MatMul" and index == 1 for user, index in matrix.uses()):
            continue
        tensor = matrix.const_value
        assert tensor is not None and isinstance(tensor.shape, ir.Shape)
        inputs, outputs = map(int, tensor.shape)
        block = _BLOCK
        while inputs % block:
            block //= 2
        codes, scales = (
            _initializer(model, f"{name}.codes", ir.DataType.INT4, (inputs, outputs), lambda t=tensor, b=block: codes_of(t.numpy(), b)),
            _initializer(
                model, f"{name}.scales", ir.DataType.FLOAT16, (inputs // block, outputs), lambda t=tensor, b=block: scales_of(t.numpy(), b)
            ),
        )
        attributes = [ir.AttrInt64("axis", 0), ir.AttrInt64("block_size", block)]
        node = _node("DequantizeLinear", [codes, scales], attributes, f"{name}.whole", ir.DataType.FLOAT16, tensor.shape)
        ir.convenience.replace_all_uses_with(matrix, node.outputs[0])
        model.graph.insert_before(model.graph[0], node)
        del model.graph.initializers[name]


def _raise_opset(model: ir.Model) -> None:
    """From 17, for the operators of a decoder and its head, whose words for the same thing changed in 18."""
    if (model.opset_imports[""] or 0) >= _OPSET:
        return
    for node in model.graph:
        if node.op_type == "ReduceMean":
            axes = np.array(node.attributes.pop("axes").as_ints(), np.int64)
            value = _initializer(model, f"{node.outputs[0].name}.axes", ir.DataType.INT64, axes.shape, lambda axes=axes: axes)
            node.resize_inputs(2)
            node.replace_input_with(1, value)
        elif node.op_type == "Split" and len(node.inputs) == 1:
            node.attributes.add(ir.AttrInt64("num_outputs", len(node.outputs)))
    model.opset_imports[""], model.ir_version = _OPSET, _IR_VERSION


def _to_bf16(model: ir.Model) -> None:
    """FLOAT16 becomes BFLOAT16, inside and in the cache. Other inputs and outputs stay and are cast at the edge."""
    graph, half, brain = model.graph, ir.DataType.FLOAT16, ir.DataType.BFLOAT16
    first = graph[0]
    values = [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]
    inside = {value for value in values if value.dtype == half}
    for node in graph:
        if node.op_type == "Cast" and node.attributes.get_int("to") == half:
            node.attributes["to"] = ir.AttrInt64("to", brain)
    for value in graph.inputs:
        if value in inside and not _CACHE.fullmatch(str(value.name)):
            inside.remove(value)
            users = list(value.uses())
            cast = _node("Cast", [value], [ir.AttrInt64("to", brain)], f"{value.name}.bf16", brain, value.shape)
            for user, index in users:
                user.replace_input_with(index, cast.outputs[0])
            graph.insert_before(first, cast)
    for index, value in enumerate(graph.outputs):
        if value in inside and not _CACHE.fullmatch(str(value.name)):
            name, value.name = str(value.name), f"{value.name}.bf16"
            cast = _node("Cast", [value], [ir.AttrInt64("to", half)], name, half, value.shape)
            graph.append(cast)
            graph.outputs[index] = cast.outputs[0]
    for value in inside:
        value.dtype = brain
        if (tensor := value.const_value) is not None:
            value.const_value = _lazy(value.name, brain, tensor.shape, lambda t=tensor: t.numpy().astype(brain.numpy()))


def _node(kind: str, inputs: list[ir.Value], attributes: list[ir.Attr], output: str, dtype: ir.DataType, shape: Any) -> ir.Node:
    node = ir.Node("", kind, inputs, attributes, num_outputs=1, name=output)
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = output, dtype, shape
    return node


def _initializer(model: ir.Model, name: str, dtype: ir.DataType, shape: tuple[int, ...], make: Callable[[], Array]) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=_lazy(name, dtype, ir.Shape(shape), make))
    model.graph.initializers[name] = value
    return value


def _lazy(name: str | None, dtype: ir.DataType, shape: Any, make: Callable[[], Array]) -> ir.LazyTensor:
    """A tensor that exists while it is written."""
    return ir.LazyTensor(lambda: ir.Tensor(make(), dtype, name=name), dtype, shape, name=name)
