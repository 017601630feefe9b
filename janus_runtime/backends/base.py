"""What a backend is: it opens graphs as engines and owns the memory that engines read and write."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendError
from ..manifest import DType, Graph

Array = NDArray[Any]


class Engine(Protocol):
    """One graph, ready to run. Stateless: whatever lasts between calls is handed in. Safe to share by threads."""

    name: str
    spec: Graph

    def run(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Runs once. Arrays in `outputs` are written in place and may share memory with an input where the
        graph says so (the cache); every other output is returned in a new array that is the caller's.
        Raises BackendError on a name, dtype or shape that is not the graph's."""

    def close(self) -> None: ...


class Backend(Protocol):
    name: str
    description: str
    flavour: str
    """Which entry `language_model.<flavour>` of a bundle this backend runs."""

    def load(self, bundle: Bundle, graph: str) -> Engine: ...

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Memory for a cache, where the engines want it. Slices along the first axis are views."""

    def advice(self, bundle: Bundle) -> str | None:
        """One line for the user if this bundle runs badly here, with the export that would run well."""


def check_tensors(engine: str, spec: Graph, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Names, dtypes and shapes at the door; `outputs` may be some of the graph's. Raises BackendError with got and expected."""
    if inputs.keys() != spec.inputs.keys():
        raise BackendError(f"{engine} got inputs {sorted(inputs)}, expected {sorted(spec.inputs)}")
    if not outputs.keys() <= spec.outputs.keys():
        raise BackendError(f"{engine} got outputs {sorted(outputs)}, expected some of {sorted(spec.outputs)}")
    sizes: dict[str, int] = {}
    both = [(name, spec.inputs[name], array) for name, array in inputs.items()]
    both += [(name, spec.outputs[name], array) for name, array in outputs.items()]
    for name, tensor, array in both:
        if array.dtype != np.dtype(tensor.dtype):
            raise BackendError(f"{engine}.{name} got dtype {array.dtype}, expected {tensor.dtype}")
        fits = len(array.shape) == len(tensor.shape) and all(
            size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
            for size, dim in zip(array.shape, tensor.shape, strict=True)
        )
        if not fits:
            raise BackendError(f"{engine}.{name} got shape {list(array.shape)}, expected {list(tensor.shape)} with {sizes}")
