"""The one weights file of a bundle: planned first, then written front to back, one tensor in memory at a time."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from janus_runtime.bundle.manifest import File

from .checkpoint.tensor import Tensor
from .recipes import Recipe

# Enough for every vector instruction set, and little lost on the many small tensors.
ALIGNMENT = 64


@dataclass(frozen=True)
class Place:
    """Where a stored tensor lies in the file, in bytes."""

    offset: int
    length: int


@dataclass
class WeightPlan:
    """Places for every stored tensor in order of first use. The same recipe and dtype is stored once."""

    places: dict[tuple[Recipe, str], Place] = field(default_factory=dict)
    total_bytes: int = 0

    def add(self, recipe: Recipe, dtype: str) -> Place:
        key = (recipe, dtype)
        if key not in self.places:
            offset = -(-self.total_bytes // ALIGNMENT) * ALIGNMENT
            length = int(np.prod(recipe.shape)) * np.dtype(dtype).itemsize
            self.places[key] = Place(offset, length)
            self.total_bytes = offset + length
        return self.places[key]

    def write(self, path: Path, tensors: Mapping[str, Tensor], on_bytes: Callable[[int], None]) -> File:
        """Writes the file and returns its size and hash. `on_bytes` is told how many bytes are done."""
        digest = hashlib.sha256()
        position = 0
        with path.open("wb") as file:
            for (recipe, dtype), place in self.places.items():
                padding = bytes(place.offset - position)
                data = recipe.make(tensors, np.dtype(dtype)).data.cast("B")
                for part in (padding, data):
                    file.write(part)
                    digest.update(part)
                position = place.offset + place.length
                on_bytes(position)
        return File(position, digest.hexdigest())
