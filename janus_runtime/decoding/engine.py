"""Engine, Binding, Backend: what opens graphs and runs them. Backends implement these; nothing here knows one of them."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..bundle.interface import Flavour, TensorSpec
from ..bundle.manifest import Graph
from ..errors import BackendError, NumericalError
from .stop import RunStop

if TYPE_CHECKING:
    from .device import DecoderLimits

Array = NDArray[Any]
Modality = Literal["text", "image"]
"""What kind of ids a row of the decoder takes and predicts."""


class Engine(Protocol):
    """One graph, ready to run. Stateless: whatever lasts between calls is handed in. Safe to share by threads."""

    name: str
    spec: Graph

    def run(self, inputs: Mapping[str, Array], stop: RunStop | None = None) -> dict[str, Array]:
        """Runs once; outputs are in new arrays that are the caller's. `stop` ends it early where the backend can.
        Raises BackendError on a name, dtype or shape that is not the graph's, RunStopped after `stop.set()`."""

    def close(self) -> None: ...


class HostEngine(Engine, Protocol):
    """An engine over memory of the host."""

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> "Binding":
        """Ties some inputs and outputs to memory for many runs, so that they are checked and handed over once.
        Arrays in `outputs` are written in place and may share memory with an input where the graph says so (the cache).
        Raises BackendError as `run` does."""


class Binding(Protocol):
    """An engine with some of its tensors in place. For one caller at a time."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs once on the inputs that are not bound -> the outputs that are not, as `Engine.run`."""


class Backend(Protocol):
    """Without `limits` its engines are `HostEngine`s, and its decoder takes what `HostSession` gives, flavour `gqa`; with them they are
    `DeviceEngine`s over the memory of `limits.device`."""

    name: str
    description: str
    flavour: Flavour
    """Which `language_model` of a bundle this backend runs."""
    limits: "DecoderLimits | None"
    """Of a decoder whose steps are work of a device; None where they run in the host's memory."""

    def load(self, bundle: Bundle, graph: str) -> Engine: ...

    def advice(self, bundle: Bundle) -> str | None:
        """One line for the user if this bundle runs badly here, with the export that would run well."""

    def close(self) -> None:
        """Frees what is not an engine's."""


def check_finite(engine: str, values: Array, when: str = "") -> None:
    """Raises NumericalError if one of `values`, which `engine` gave, is NaN or Inf."""
    if not np.isfinite(values).all():
        raise numerical_error(engine, when)


def numerical_error(engine: str, when: str = "") -> NumericalError:
    return NumericalError(
        f"{engine} gave NaN or Inf{when}; the weights overflow this precision or are damaged: run 'janus-rt verify', or export in fp32"
    )


def check_names(engine: str, kind: str, got: Collection[str], expected: Collection[str], some: bool = False) -> None:
    """`got` are `expected`, or `some` of them. Raises BackendError."""
    if set(got) - set(expected) or (not some and set(expected) - set(got)):
        raise BackendError(f"{engine} got {kind} {sorted(got)}, expected {'some of ' if some else ''}{sorted(expected)}")


def check_tensors(engine: str, specs: Mapping[str, TensorSpec], tensors: Mapping[str, Array], sizes: dict[str, int]) -> None:
    """Dtypes and shapes at the door. `sizes` holds what the letters of shapes stand for so far, and learns new ones.

    Raises BackendError with got and expected.
    """
    for name, array in tensors.items():
        tensor = specs[name]
        if array.dtype != np.dtype(tensor.dtype):
            raise BackendError(f"{engine}.{name} got dtype {array.dtype}, expected {tensor.dtype}")
        fits = len(array.shape) == len(tensor.shape) and all(
            size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
            for size, dim in zip(array.shape, tensor.shape, strict=True)
        )
        if not fits:
            raise BackendError(f"{engine}.{name} got shape {list(array.shape)}, expected {list(tensor.shape)} with {sizes}")
