"""One ONNX graph -> one TensorRT plan, with TensorRT 8.6 to 11 or TensorRT-RTX. No torch.

The libraries differ in what they have; `features` asks for it, and nothing here looks at a version.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janus_runtime.bundle.interface import TensorSpec
from janus_runtime.bundle.manifest import Graph
from janus_runtime.errors import BackendError, JanusError, first_line
from janus_runtime.packages import importing
from janus_runtime.whole_file import open_part, rename_over

# Shape letter -> its least, its usual and its largest size.
Profile = Mapping[str, tuple[int, int, int]]
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Features:
    """`strongly_typed`: types are those of the file; else every layer is told. `in_place`: a cache can be written in place."""

    explicit_batch: bool
    strongly_typed: bool
    in_place: bool


def features(trt: Any) -> Features:
    """What this library has, found by looking."""
    flags = trt.NetworkDefinitionCreationFlag
    return Features(
        explicit_batch=hasattr(flags, "EXPLICIT_BATCH"),
        strongly_typed=hasattr(flags, "STRONGLY_TYPED"),
        in_place=hasattr(trt.INetworkDefinition, "add_kv_cache_update"),
    )


class Builder:
    """Builds for this machine's GPU, or for `compute_capability` where there is none (TensorRT-RTX can, TensorRT cannot).

    Attributes: `library`, `version`, `gpu`, `compute_capability` (as in `8.9`), `features`.
    """

    def __init__(self, library: str = "tensorrt", compute_capability: str | None = None) -> None:
        """Raises BackendError without the library, or without a GPU where one is needed."""
        self._trt = _import(library)
        self.library, self.version, self.features = library, str(self._trt.__version__), features(self._trt)
        self._here = compute_capability is None
        if compute_capability is None:
            self.gpu, self.compute_capability = this_gpu()
        else:
            self.gpu, self.compute_capability = f"sm {compute_capability}", compute_capability
        self._log = _logger(self._trt)
        self._builder = self._trt.Builder(self._log)

    def build(
        self, onnx: Path, plan: Path, graph: Graph, profiles: list[Profile], sizes: Mapping[str, int], level: int, timings: Path
    ) -> None:
        """Writes `plan`. `sizes` are letters that the graph must hold as numbers; `timings` is read, if there, and replaced.

        Raises JanusError where TensorRT does not read the graph, cannot build it or leaves an input out.
        """
        trt, name = self._trt, plan.stem
        self._log.errors.clear()
        network = self._parse(onnx, name, sizes)
        _check_interface(f"TensorRT's network of {name}", _of_network(network), graph)
        if unused := _unused_inputs(network):
            raise JanusError(f"TensorRT drops {', '.join(unused)} of {name}: no output depends on it; use another --flavour")
        config = self._builder.create_builder_config()
        self._configure(config, network, level)
        for letters in profiles:
            config.add_optimization_profile(self._profile(graph, letters, sizes))
        cache = None
        if self._here:
            cache = config.create_timing_cache(timings.read_bytes() if timings.is_file() else b"")
            # One of another GPU or version is not used; TensorRT says so and measures anew.
            if not config.set_timing_cache(cache, False):
                cache = config.create_timing_cache(b"")
                config.set_timing_cache(cache, False)
        memory = self._builder.build_serialized_network(network, config)
        if memory is None:
            raise JanusError(f"TensorRT {self.version} cannot build {name}: {self._log.last()}")
        with plan.open("wb") as file:
            file.write(memory)
        if cache is not None:
            with open_part(timings) as file:
                file.write(cache.serialize())
                rename_over(file, timings)
        if self._here:
            engine = trt.Runtime(self._log).deserialize_cuda_engine(memory)
            if engine is None:
                raise JanusError(f"TensorRT {self.version} does not load the plan it made of {name}: {self._log.last()}")
            _check_interface(f"TensorRT's plan of {name}", _of_engine(engine, trt), graph)

    def _parse(self, onnx: Path, name: str, sizes: Mapping[str, int]) -> Any:
        trt, flags = self._trt, 0
        if self.features.explicit_batch:
            flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        if self.features.strongly_typed:
            flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self._builder.create_network(flags)
        parser = trt.OnnxParser(network, self._log)
        good = parser.parse(with_sizes(onnx, sizes), str(onnx)) if sizes else parser.parse_from_file(str(onnx))
        if not good:
            errors = [" ".join(parser.get_error(i).desc().split()) for i in range(parser.num_errors)]
            raise JanusError(f"TensorRT {self.version} cannot read {name}: {'; '.join(errors) or self._log.last()}")
        return network

    def _configure(self, config: Any, network: Any, level: int) -> None:
        trt = self._trt
        config.builder_optimization_level = level
        # One stream: a step is captured as one graph, and its kernels are small and follow one another.
        config.max_aux_streams = 0
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        # What is fp32 stays fp32.
        config.clear_flag(trt.BuilderFlag.TF32)
        # Without them a plan needs neither cuBLAS nor cuDNN where it runs.
        libraries = [getattr(trt.TacticSource, source, None) for source in ("CUBLAS", "CUBLAS_LT", "CUDNN")]
        without = sum(1 << int(source) for source in libraries if source is not None)
        config.set_tactic_sources(config.get_tactic_sources() & ~without)
        if not self._here:
            config.num_compute_capabilities = 1
            target = getattr(trt.ComputeCapability, f"SM{self.compute_capability.replace('.', '')}", None)
            if target is None:
                raise BackendError(f"{self.library} {self.version} builds no plans for compute capability {self.compute_capability}")
            config.set_compute_capability(target, 0)
        if not self.features.strongly_typed and any(trt.DataType.HALF in types for _, types in float_types(network, trt)):
            config.set_flag(trt.BuilderFlag.FP16)
            config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
            pin_types(network, trt)

    def _profile(self, graph: Graph, letters: Profile, sizes: Mapping[str, int]) -> Any:
        profile = self._builder.create_optimization_profile()
        known = {**letters, **{letter: (size,) * 3 for letter, size in sizes.items()}}
        for name, spec in graph.inputs.items():
            if any(isinstance(size, str) for size in spec.shape):
                shapes = [tuple(known[size][i] if isinstance(size, str) else size for size in spec.shape) for i in range(3)]
                profile.set_shape(name, *shapes)
        return profile


def float_types(network: Any, trt: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Each layer and the float type of each of its outputs, None where that is no float: what the file's own casts say.

    Types are known at inputs, constants and casts and go from there to whatever is computed.
    """
    floats = (trt.DataType.FLOAT, trt.DataType.HALF)
    known = {tensor.name: tensor.dtype for tensor in map(network.get_input, range(network.num_inputs)) if tensor.dtype in floats}
    for layer in map(network.get_layer, range(network.num_layers)):
        inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
        source = next((known[tensor.name] for tensor in inputs if tensor is not None and tensor.name in known), None)
        types = []
        for tensor in map(layer.get_output, range(layer.num_outputs)):
            is_float = tensor.dtype in floats
            dtype = tensor.dtype if source is None or layer.type == trt.LayerType.CONSTANT else source
            if layer.type == trt.LayerType.CAST:
                cast = layer
                cast.__class__ = trt.ICastLayer  # get_layer gives the base class, which has no `to_type`
                dtype = cast.to_type
            types.append(dtype if is_float else None)
            if is_float:
                known[tensor.name] = types[-1]
        yield layer, types


def pin_types(network: Any, trt: Any) -> None:
    """Without strong types TensorRT would compute norms and softmax in fp16, too: each layer is told what the file says."""
    for layer, types in list(float_types(network, trt)):
        if layer.type in (trt.LayerType.CONSTANT, trt.LayerType.CAST):
            continue
        for index, dtype in enumerate(types):
            if dtype is not None:
                layer.precision = dtype
                layer.set_output_type(index, dtype)


def this_gpu() -> tuple[str, str]:
    """Name and compute capability of the first GPU. Raises BackendError."""
    with importing("trt", "the search for a GPU"):
        from cuda.core import Device
    try:
        device = Device(0)
        device.set_current()
        major, minor = device.compute_capability
        return str(device.name), f"{major}.{minor}"
    except Exception as error:
        raise BackendError(
            f"no NVIDIA GPU can be used here ({first_line(error)}); TensorRT plans are built on the machine that runs them"
        ) from None


def _import(library: str) -> Any:
    with importing("trt", "the builder of plans"):
        return importlib.import_module(library)


def _logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]  # of a module that is chosen at run time
        """Keeps errors, in one line each; the rest is said by what we raise."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def last(self) -> str:
            return self.errors[-1] if self.errors else "it gives no reason"

    return Log()


def with_sizes(onnx: Path, sizes: Mapping[str, int]) -> bytes:
    """The graph with numbers for the letters of `sizes`, as TensorRT's parser takes it. Weights stay where they are."""
    with importing("trt", "a cache that is written in place"):
        import onnx_ir as ir

    model = ir.load(onnx)
    for value in [*model.graph.inputs, *model.graph.outputs]:
        assert value.shape is not None
        value.shape = ir.Shape([sizes.get(str(getattr(size, "value", size)), size) for size in value.shape])
    return ir.to_proto(model).SerializeToString()


def _of_network(network: Any) -> dict[str, tuple[str, str]]:
    """Name -> (input or output, dtype)."""
    inputs = {tensor.name: ("input", _DTYPES[tensor.dtype.name]) for tensor in map(network.get_input, range(network.num_inputs))}
    return inputs | {tensor.name: ("output", _DTYPES[tensor.dtype.name]) for tensor in map(network.get_output, range(network.num_outputs))}


def _of_engine(engine: Any, trt: Any) -> dict[str, tuple[str, str]]:
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    sides = {name: "input" if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "output" for name in names}
    return {name: (side, _DTYPES[engine.get_tensor_dtype(name).name]) for name, side in sides.items()}


def _check_interface(where: str, got: dict[str, tuple[str, str]], graph: Graph) -> None:
    sides: tuple[tuple[str, dict[str, TensorSpec]], ...] = (("input", graph.inputs), ("output", graph.outputs))
    expected = {name: (side, str(spec.dtype)) for side, specs in sides for name, spec in specs.items()}
    for name in [*expected, *got]:
        if got.get(name) != expected.get(name):
            has, wants = (" ".join((name, *value)) if value else f"no {name}" for value in (got.get(name), expected.get(name)))
            raise JanusError(f"{where} has {has}, expected {wants}; use another --flavour or export the bundle again")


def _unused_inputs(network: Any) -> list[str]:
    """Inputs that no output depends on, which the parser or the builder leaves out without an error."""
    needed = {network.get_output(i).name for i in range(network.num_outputs)}
    for layer in map(network.get_layer, reversed(range(network.num_layers))):
        if any(layer.get_output(i).name in needed for i in range(layer.num_outputs)):
            needed |= {tensor.name for tensor in map(layer.get_input, range(layer.num_inputs)) if tensor is not None}
    return sorted({network.get_input(i).name for i in range(network.num_inputs)} - needed)
