"""How each stored tensor is made from the checkpoint's: the link between a module's parameter and upstream names.

Matrices are stored `[in, out]`, so that a graph multiplies without a transpose, and matrices that share
their input are merged into one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

from .checkpoint.tensor import Tensor
from .errors import CheckpointError

Array = np.ndarray[Any, Any]

# (name, shape) of each tensor that is read, by upstream's naming.
Sources = tuple[tuple[str, tuple[int, ...]], ...]

_ROWS = 1024  # of a source that are in memory at once
_SLAB = 32 << 20  # bytes of one that is stored the other way round: few rows would be as many reads as it has columns
_FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class FromCheckpoint:
    """Sources joined along their first axis, then transposed if `transposed`. Shapes are upstream's."""

    sources: Sources
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        first = sum(shape[0] for _, shape in self.sources)
        joined = (first, *self.sources[0][1][1:])
        return joined[::-1] if self.transposed else joined

    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> Array:
        """Reads and converts a few rows at a time into fresh memory. Raises CheckpointError if a value overflows."""
        result = np.empty(self.shape, dtype)
        target = result.T if self.transposed else result
        done = 0
        for name, source in rows_of(tensors, self.sources):
            part = target[done : done + len(source)]
            with np.errstate(over="ignore"):
                part[...] = source
            if not np.isfinite(part).all():
                refuse_overflow(name, source, dtype)
            done += len(source)
        return result


def rows_of(tensors: Mapping[str, Tensor], sources: Sources) -> Iterator[tuple[str, Array]]:
    """The sources' rows in order, _ROWS at a time, with the name of the tensor they are from."""
    for name, shape in sources:
        tensor, at_once = tensors[name], _ROWS
        if tensor.stride is not None:
            at_once = max(_ROWS, _SLAB // (shape[1] * tensor.dtype.itemsize))
        for start in range(0, shape[0], at_once):
            slab = tensor.rows(start, min(start + at_once, shape[0])).read()
            for first in range(0, len(slab), _ROWS):
                yield name, slab[first : first + _ROWS]


def finite_rows_of(tensors: Mapping[str, Tensor], sources: Sources) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """`rows_of` in fp32. Raises CheckpointError if a value is not finite."""
    for name, source in rows_of(tensors, sources):
        rows = source.astype(np.float32)
        if not np.isfinite(rows).all():
            refuse_overflow(name, source, rows.dtype)
        yield rows


@dataclass(frozen=True)
class RopeTable:
    """cos or sin of position times inverse frequency, [max_length, head_size / 2], angles in fp32.

    The reference scripts round the frequencies to bf16 by the way they load; that is their accident, not the model.
    """

    function: str
    max_length: int
    head_size: int
    theta: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.max_length, self.head_size // 2

    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> Array:
        exponents = np.arange(0, self.head_size, 2, dtype=np.float32) / np.float32(self.head_size)
        frequencies = np.float32(1) / np.power(np.float32(self.theta), exponents)
        angles = np.arange(self.max_length, dtype=np.float32)[:, None] * frequencies
        table: Array = getattr(np, self.function)(angles).astype(dtype)
        return table


@dataclass(frozen=True, eq=False)
class Given:
    """Values that are known already, and come from no tensor."""

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> Array:
        return np.ascontiguousarray(self.values.astype(dtype))


class Recipe(Protocol):
    """A stored tensor: its shape, and how its values are made in a dtype. Hashable: what is made alike is stored once."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def make(self, tensors: Mapping[str, Tensor], dtype: np.dtype[Any]) -> Array: ...


def check_tensors(recipes: Sequence[Recipe], tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError listing by name every tensor that is missing, misshaped or known to nobody."""
    expected = {name: shape for recipe in recipes if isinstance(recipe, FromCheckpoint) for name, shape in recipe.sources}
    problems = [
        *(f"missing {name} {list(shape)}" for name, shape in expected.items() if name not in tensors),
        *(
            f"{name} has shape {list(tensors[name].shape)}, expected {list(shape)}"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        ),
        *(
            f"{name} has dtype {tensors[name].dtype.name}, expected float32, float16 or bfloat16"
            for name in expected
            if name in tensors and tensors[name].dtype.name not in _FLOATS
        ),
        *(f"unknown {name} {list(tensor.shape)}" for name, tensor in tensors.items() if name not in expected),
    ]
    if problems:
        shown = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        if not tensors.keys() <= expected.keys():
            shown += ". What is unknown is another model's, or a trainer's: save the weights again without it, or export what was published"
        raise CheckpointError(f"the checkpoint does not fit its config.json: {shown}")


def refuse_overflow(name: str, source: Array, dtype: np.dtype[Any]) -> NoReturn:
    """Raises CheckpointError: `source` does not fit `dtype`, or is damaged."""
    if np.isfinite(source).all():
        largest = float(np.abs(source.astype(np.float32)).max())
        raise CheckpointError(f"{name} holds {largest:g}, beyond {dtype}'s {np.finfo(dtype).max:g}; export with --precision fp32")
    raise CheckpointError(f"{name} holds NaN or Inf: the checkpoint is damaged; fetch it again")
