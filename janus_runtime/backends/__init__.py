"""Backends by name. Each is imported only when asked for, so that none is needed to import the package."""

from typing import Literal

from ..errors import BackendError
from .base import Backend, Engine

__all__ = ["Backend", "BackendName", "Engine", "open_backend"]

BackendName = Literal["auto", "cpu", "cuda", "tensorrt"]


def open_backend(name: BackendName) -> Backend:
    """`auto` takes the best that is there and the result says which. Raises BackendError if there is none."""
    if name in ("auto", "cpu"):
        from .ort import OrtCpu

        return OrtCpu()
    if name in ("cuda", "tensorrt"):
        raise BackendError(f"backend {name!r} is not part of this version yet; use 'cpu' or 'auto'")
    raise BackendError(f"no backend called {name!r}; expected auto, cpu, cuda or tensorrt")
