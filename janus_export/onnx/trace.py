"""GraphSpec -> ONNX: trace on fake weights, point the weights into the bundle's one file, check, save.

No weight is in memory here, so a 7B decoder traces in the same space as a tiny one.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.onnx._internal.exporter._registration import ONNXRegistry

from janus_runtime.bundle.interface import DType, Interface, NumberFormat, Sizes, TensorSpec, TensorSpecs, interface
from janus_runtime.bundle.manifest import WEIGHTS, Graph, Precision

from ..checkpoint.sizes import JanusConfig
from ..graphs import GraphSpec
from ..modules.attention import Traced
from ..modules.layers import recipes_of
from ..modules.vq import GroupNorm
from ..precision import format_of
from ..weights import WeightPlan
from .fuse import fuse_residual_norms
from .inline import DOMAIN, inline
from .int8_cache import CacheScales, quantise_cache
from .judge import ProductJudge
from .opsets import LOWERED, TRACED, lower
from .quantise import quantise_graph

# Example sizes of the dimensions that vary. All differ and none is 0 or 1, which tracing would take for constants.
_SIZES = {"rows": 2, "tokens": 3, "outputs": 4, "max_length": 7, "images": 2, "steps": 5}
_TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"
# What a flavour's placeholder gives; the names are gone once it is inlined.
_ATTENDED = ["context", "given_key", "given_value"]


def export_graph(
    spec: GraphSpec,
    config: JanusConfig,
    sizes: Sizes,
    precision: Precision,
    judge: ProductJudge,
    cache: CacheScales,
    plan: WeightPlan,
    folder: Path,
) -> Graph:
    """Writes `<name>.onnx`, reserves places for its weights in `plan`, and returns its manifest entry.

    `judge` has seen the reference run; `cache` need not be filled before the weights are written.
    """
    format = format_of(spec.kind, precision, spec.flavour)
    f = format.dtype
    traced = spec.interface(sizes, f)
    with FakeTensorMode(), _quiet():
        module = spec.build(config, getattr(torch, f)).eval()
        recipes = recipes_of(module)
        model = _traced(module, traced.inputs, list(traced.outputs), spec.opset, lambda named: spec.arrange(named, traced))
        for word, body in _placeholders(module, model, spec.opset):
            inline(model, word, body)
    _check_interface(spec.name, model, traced)
    _strip(model, spec.name)
    if spec.opset == LOWERED:
        lower(model)
    if model.opset_imports.get("com.microsoft"):  # made for ONNX Runtime alone
        fuse_residual_norms(model)
    judged = quantise_graph(model, recipes, format, judge)
    given = traced
    if format.int8_cache:
        quantise_cache(model, recipes, cache)
        given = interface(spec.kind, spec.flavour, sizes, f, "int8")
    file = f"{spec.name}.onnx"
    weight_bytes = save_graph(model, recipes, plan, folder / file)
    number_format = NumberFormat(format.weights, f)
    return Graph(spec.kind, spec.flavour, file, number_format, given.inputs, given.outputs, given.cache, weight_bytes, judged)


def save_graph(model: ir.Model, recipes: Mapping[str, tuple[Any, Any]], plan: WeightPlan, path: Path) -> int:
    """Writes the graph, whose weights `recipes` (name -> recipe, dtype) makes, reserves their places in `plan`, and returns their bytes."""
    weight_bytes = 0
    for name, value in model.graph.initializers.items():
        if name in recipes:
            recipe, dtype = recipes[name]
            place = plan.add(recipe, str(dtype).removeprefix("torch."))
            weight_bytes += place.length
            assert value.dtype is not None and isinstance(value.shape, ir.Shape)
            value.const_value = ir.ExternalTensor(
                WEIGHTS, place.offset, place.length, value.dtype, name=name, shape=value.shape, base_dir=path.parent
            )
    ir.save(model, path)
    return weight_bytes


@contextmanager
def torch_cache_in(folder: Path) -> Iterator[None]:
    """Has torch's compiler keep its cache inside `folder` for as long as this lasts, unless TORCHINDUCTOR_CACHE_DIR names another.

    It makes that folder as soon as it is imported, by default /tmp/torchinductor_<user>, and leaves it there.
    """
    if _TORCH_CACHE in os.environ:
        yield
        return
    with TemporaryDirectory(dir=folder) as cache:
        os.environ[_TORCH_CACHE] = cache
        try:
            yield
        finally:
            del os.environ[_TORCH_CACHE]


def check_graph(path: Path) -> None:
    """The ONNX checker, once the weights are beside the graph."""
    onnx.checker.check_model(str(path))


def _as_list(named: dict[str, Any]) -> tuple[Any, ...]:
    return (list(named.values()),)


def _placeholders(module: nn.Module, model: ir.Model, opset: int) -> Iterator[tuple[str, ir.Model]]:
    """What stands for parts that recur in a traced module, and the traced part."""
    for part in module.modules():
        if isinstance(part, Traced):
            yield part.flavour, _traced(_Attend(part), part.tensors, _ATTENDED, opset, _as_list)
    norms = {node.op_type: node for node in model.graph if node.domain == DOMAIN and node.op_type.startswith(GroupNorm.word)}
    for word, node in norms.items():
        x = node.inputs[0]
        assert x is not None and x.dtype is not None
        yield word, _normalise(x.dtype.numpy().name, *map(int, word.split("_")[-3:]), opset)


@lru_cache
def _normalise(dtype: DType, channels: int, height: int, width: int, opset: int) -> ir.Model:
    """`GroupNorm.normalise` of maps of this shape. It has no weights of its own, so that encoder and decoder share it."""
    vector = TensorSpec(dtype, (channels,))
    tensors = {"x": TensorSpec(dtype, ("images", channels, height, width)), "weight": vector, "bias": vector}
    return _traced(_Normalise(), tensors, ["y"], opset, _as_list)


class _Normalise(nn.Module):
    """What a group norm's placeholder stands for."""

    def forward(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        return GroupNorm.normalise(*tensors)


class _Attend(nn.Module):
    """What a flavour's placeholder stands for, without the flavour's parameters."""

    def __init__(self, attention: Traced) -> None:
        super().__init__()
        self.attend = attention.attend

    def forward(self, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return self.attend(*tensors)


def _traced(
    module: nn.Module,
    inputs: TensorSpecs,
    outputs: list[str],
    opset: int,
    arrange: Callable[[dict[str, Any]], tuple[Any, ...]],
) -> ir.Model:
    """The module as ONNX, tidied, with weights of which only names are known."""
    with _shared_registry():
        program = torch.onnx.export(
            module,
            arrange({name: _example(tensor) for name, tensor in inputs.items()}),
            dynamo=True,
            opset_version=max(opset, TRACED),
            dynamic_shapes=_dynamic_shapes(arrange, inputs),
            input_names=list(inputs),
            output_names=outputs,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    _forget_weights(program.model, {name for name, _ in module.named_parameters()})
    onnxscript.optimizer.optimize(program.model)
    return program.model


@contextmanager
def _shared_registry() -> Iterator[None]:
    """Has torch.onnx fill its registry of ATen functions once, not for every graph, which takes as long as a small graph. torch is pinned,
    so that what this replaces is what was looked at."""
    ONNXRegistry.from_torchlib = staticmethod(_registry)  # type: ignore[method-assign]  # replaced on purpose
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = _fill_registry  # type: ignore[method-assign]  # put back


_fill_registry = ONNXRegistry.from_torchlib


@lru_cache
def _registry(opset_version: int) -> ONNXRegistry:
    return _fill_registry(opset_version)


def _example(spec: TensorSpec) -> torch.Tensor:
    shape = [_SIZES[size] if isinstance(size, str) else size for size in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _dynamic_shapes(arrange: Callable[[dict[str, Any]], tuple[Any, ...]], inputs: TensorSpecs) -> tuple[object, ...]:
    dims = {name: torch.export.Dim(name) for name in _SIZES}
    shapes = {
        name: {axis: dims[size] for axis, size in enumerate(tensor.shape) if isinstance(size, str)} for name, tensor in inputs.items()
    }
    return arrange(shapes)


def _forget_weights(model: ir.Model, names: set[str]) -> None:
    """Takes the fake values out, so that the optimizer sees weights as unknown and leaves them alone."""
    for name, value in model.graph.initializers.items():
        if name in names:
            value.const_value = None


def _check_interface(name: str, model: ir.Model, interface: Interface) -> None:
    """The graph takes and gives exactly what its interface says, and uses every input."""
    for side, values, specs in (("inputs", model.graph.inputs, interface.inputs), ("outputs", model.graph.outputs, interface.outputs)):
        got = {str(value.name): str(value.dtype.numpy().name) for value in values if value.dtype is not None}
        expected = {key: spec.dtype for key, spec in specs.items()}
        assert got == expected, f"{name}: traced {side} {got}, expected {expected}"
    unused = [value.name for value in model.graph.inputs if not value.uses()]
    assert not unused, f"{name}: inputs {unused} are used by no node"


def _strip(model: ir.Model, name: str) -> None:
    """Removes what depends on the machine and on how the tracer went: stack traces, module paths, notes."""
    model.graph.name = name
    model.doc_string = model.graph.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        values.extend(node.outputs)
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None


class _quiet(warnings.catch_warnings):
    """The tracer warns about absent optional packages and its own internals; neither is the user's business."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)

    def __exit__(self, *exc: Any) -> None:
        logging.disable(logging.NOTSET)
        super().__exit__(*exc)
