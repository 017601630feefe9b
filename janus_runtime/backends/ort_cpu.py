"""ONNX Runtime. Memory is NumPy's; every tensor is bound by address, so nothing is copied on the way."""

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.interface import Flavour, TensorSpec, graph_name
from ..bundle.manifest import WEIGHTS, Graph
from ..decoding.engine import Array, check_names, check_tensors
from ..decoding.stop import RunStop, RunStopped
from ..errors import BackendError, BundleError, first_line
from ..packages import importing
from .huge_pages import huge_pages
from .prepacked import prepacked_path, saving
from .processor import has_vnni

with importing("cpu", "the cpu backend"):
    import onnxruntime as ort


# The first that was tested with keys and values in int8.
_INT8_CACHE_SINCE = (1, 31)
_THREADS = "JANUS_THREADS"


def _read_threads() -> int:
    """Threads of each graph; 0, unless the environment says otherwise, is one for each core of the machine. Raises BackendError."""
    stated = os.environ.get(_THREADS, "0")
    if not (stated.isascii() and stated.isdecimal() and int(stated) <= 1024):
        raise BackendError(f"{_THREADS} is {stated!r}; expected the number of cores that this process may use, or 0 for all")
    return int(stated)


class OrtCpu:
    name = "cpu"
    flavour: Flavour = "gqa"
    limits = None

    def __init__(self, bundle: Bundle) -> None:
        since = ".".join(map(str, _INT8_CACHE_SINCE))
        # A JanusFlow that only draws has its decoder elsewhere.
        decoder = bundle.manifest.graphs.get(graph_name("language_model", self.flavour))
        int8 = decoder is not None and decoder.cache is not None and decoder.cache.dtype == "int8"
        if int8 and tuple(map(int, ort.__version__.split(".")[:2])) < _INT8_CACHE_SINCE:
            newer = (
                f"pip install 'onnxruntime>={since}'" if sys.version_info >= (3, 11) else "use Python 3.11 or newer, since 3.10 has none"
            )
            raise BackendError(
                f"the KV cache of {bundle.path} is int8, which needs ONNX Runtime {since} or newer, and this is {ort.__version__}; "
                f"{newer}, or export with --precision fp32"
            )
        threads = _read_threads()
        self.description = f"ONNX Runtime {ort.__version__} on the CPU" + (f", {threads} threads" if threads else "")

    def load(self, bundle: Bundle, graph: str) -> "OrtEngine":
        return OrtEngine(bundle, graph)

    def advice(self, bundle: Bundle) -> str | None:
        if bundle.manifest.precision == "fp16":
            return (
                "this fp16 bundle runs slower on a CPU than an fp32 one and saves no memory there, since a CPU has no "
                "fp16 kernels; export with 'janus-export checkpoint SRC --out DIR --precision int4', int8 or fp32"
            )
        return None

    def close(self) -> None:
        pass


def _options() -> Any:
    options = ort.SessionOptions()
    # Errors come back as exceptions; its log would print them a second time.
    options.log_severity_level = 4
    # Several processes on a machine share its cores; each would take all.
    options.intra_op_num_threads = _read_threads()
    # Engines take turns. Threads wait for a graph's next kernel awake, which saves a tenth of a step, and sleep after its
    # last: spinning on, they would take the next graph's cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not has_vnni():  # Pairs of 8-bit products would overflow: signed weights become unsigned when a graph is opened.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _open(path: Path, options: Any) -> Any:
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _save(path: Path, to: Path, data: str) -> None:
    options = _options()
    saving(options, to, data)
    _open(path, options)


class OrtEngine:
    """One graph on the CPU provider. See `HostEngine` for the contract."""

    def __init__(self, bundle: Bundle, graph: str) -> None:
        self.name = graph
        self.spec = bundle.graph(graph)
        self._bindings: WeakSet[OrtBinding] = WeakSet()
        path = bundle.path / self.spec.file
        with bundle.unchanged(self.spec.file, WEIGHTS):
            try:
                saved = prepacked_path(bundle, self.spec, ort.__version__, lambda to, data: _save(path, to, data))
                with huge_pages():
                    self._session: Any = _open(saved or path, _options())
            except BackendError:
                raise
            except Exception as error:  # the binding's exception classes share no public base
                raise BundleError(f"{path} cannot be opened: {first_line(error)}; run 'janus-rt verify'") from None
        _engines.add(self)

    def run(self, inputs: Mapping[str, Array], stop: RunStop | None = None) -> dict[str, Array]:
        return self.bind({}, {}).run(inputs, stop)

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> "OrtBinding":
        if (session := self._session) is None:
            raise _closed(self.name)
        binding = OrtBinding(self.name, self.spec, session, inputs, outputs)
        self._bindings.add(binding)
        return binding

    def close(self) -> None:
        """Frees the weights, even while somebody keeps a binding."""
        self._session = None
        for binding in list(self._bindings):
            binding.close()

    def abandon(self) -> None:
        """Closes without freeing anything: in a forked process nobody is there to answer the destructor, which would wait for ever."""
        for native in (self._session, *(part for binding in self._bindings for part in (binding._session, binding._binding))):
            if native is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
        self.close()


_engines: WeakSet[OrtEngine] = WeakSet()


def _abandon_engines() -> None:
    for engine in list(_engines):
        engine.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_engines)


class OrtBinding:
    """Some tensors of an engine in place. See `Binding` for the contract."""

    def __init__(self, name: str, spec: Graph, session: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        check_names(name, "inputs", inputs, spec.inputs, some=True)
        check_names(name, "outputs", outputs, spec.outputs, some=True)
        self._name, self._spec, self._session = name, spec, session
        self._sizes: dict[str, int] = {}
        check_tensors(name, spec.inputs, inputs, self._sizes)
        check_tensors(name, spec.outputs, outputs, self._sizes)
        self._inputs = spec.inputs.keys() - inputs.keys()
        self._outputs = [name for name in spec.outputs if name not in outputs]
        self._binding = session.io_binding()
        # ONNX Runtime is given addresses; the memory is kept here.
        self._tied = (inputs, outputs)
        for tensor, array in inputs.items():
            self._binding.bind_ortvalue_input(tensor, _value(f"{name}.{tensor}", array))
        for tensor, array in outputs.items():
            self._binding.bind_ortvalue_output(tensor, _value(f"{name}.{tensor}", array))

    def run(self, inputs: Mapping[str, Array], stop: RunStop | None = None) -> dict[str, Array]:
        name, spec, sizes = self._name, self._spec, dict(self._sizes)
        session, binding = self._session, self._binding
        if session is None:
            raise _closed(name)
        check_names(name, "inputs", inputs, self._inputs)
        check_tensors(name, spec.inputs, inputs, sizes)
        for tensor, array in inputs.items():
            binding.bind_ortvalue_input(tensor, _value(f"{name}.{tensor}", array))
        results = {tensor: _empty(spec.outputs[tensor], sizes) for tensor in self._outputs}
        for tensor, array in results.items():
            binding.bind_ortvalue_output(tensor, _value(f"{name}.{tensor}", array))
        try:
            if stop is None:
                session.run_with_iobinding(binding)
            else:
                _run_until(stop, session, binding)
        except Exception as error:
            if stop is not None and stop.is_set:
                raise RunStopped from None
            raise BackendError(f"{name} failed: {first_line(error)}") from None
        return results

    def close(self) -> None:
        self._session = self._binding = None


def _run_until(stop: RunStop, session: Any, binding: Any) -> None:
    """ONNX Runtime looks between two nodes whether to go on; it raises where it does not."""
    options = ort.RunOptions()

    def end() -> None:
        options.terminate = True

    with stop.watching(end):
        session.run_with_iobinding(binding, options)


def _closed(engine: str) -> BackendError:
    return BackendError(f"{engine} is closed; load the bundle again, and after a fork in the process that uses it")


def _empty(spec: TensorSpec, sizes: Mapping[str, int]) -> Array:
    """Memory for an output; the letters of its shape are all of inputs (the manifest is checked for that)."""
    return np.empty([sizes[size] if isinstance(size, str) else size for size in spec.shape], spec.dtype)


def _value(name: str, array: Array) -> Any:
    """An OrtValue over the array's own memory; it must be one piece, or ONNX Runtime would take a copy."""
    if not array.flags.c_contiguous:
        raise BackendError(f"{name} got a strided array, expected one contiguous piece of memory")
    return ort.OrtValue.ortvalue_from_numpy(array)
