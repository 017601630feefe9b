"""What a backend is: it opens graphs as engines and owns the memory that engines read and write."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..bundle.manifest import Graph, TensorSpec
from ..errors import BackendError, NumericalError

if TYPE_CHECKING:
    from .device_session import DeviceSession
    from .engines import Engines
    from .host_session import Session

Array = NDArray[Any]
Kind = Literal["text", "image"]


class Engine(Protocol):
    """One graph, ready to run. Stateless: whatever lasts between calls is handed in. Safe to share by threads."""

    name: str
    spec: Graph

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs once; outputs are in new arrays that are the caller's.
        Raises BackendError on a name, dtype or shape that is not the graph's."""

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
    name: str
    description: str
    flavour: str
    """Which entry `language_model.<flavour>` of a bundle this backend runs."""

    def load(self, bundle: Bundle, graph: str) -> Engine: ...

    def session_graphs(self, kind: Kind) -> tuple[str, ...]:
        """The graphs beside the language model that a session needs from the start."""

    def session(self, engines: "Engines", kind: Kind, rows: int, max_length: int, grows: bool) -> "Session | DeviceSession":
        """A fresh session that embeds and predicts text ids or image ids, of `rows` or more; its `max_length` may be less.

        `grows`: its length is not known before, so memory should follow what it holds.

        Raises BackendError where there is no room for it.
        """

    def advice(self, bundle: Bundle) -> str | None:
        """One line for the user if this bundle runs badly here, with the export that would run well."""

    def close(self) -> None:
        """Frees what is not an engine's."""


def check_finite(engine: str, values: Array, when: str = "") -> None:
    """Raises NumericalError if one of `values`, which `engine` gave, is NaN or Inf."""
    if not np.isfinite(values).all():
        raise NumericalError(
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
