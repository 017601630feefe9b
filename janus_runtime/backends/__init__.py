"""Backends by name. Each is imported only when asked for, so that none is needed to import the package."""

import importlib
import logging
from pathlib import Path
from typing import Literal

from ..bundle.bundle import Bundle
from ..bundle.plans import PLANS
from ..decoding.engine import Backend, Engine
from ..errors import BackendError

__all__ = ["Backend", "BackendName", "Engine", "open_backend"]

BackendName = Literal["auto", "cpu", "cuda", "tensorrt"]

_BACKENDS = {"tensorrt": ("tensorrt", "TensorRt"), "cuda": ("ort_cuda", "OrtCuda"), "cpu": ("ort_cpu", "OrtCpu")}
# The driver's device on Linux.
_GPU = Path("/dev/nvidia0")
_log = logging.getLogger("janus_runtime")


def open_backend(name: BackendName, bundle: Bundle) -> Backend:
    """The backend called `name`; `auto` takes the first of TensorRT, CUDA and CPU that can run this bundle here.

    Raises BackendError that says what is missing.
    """
    if name != "auto":
        return _open(name, bundle)
    for candidate in ("tensorrt", "cuda"):
        try:
            return _open(candidate, bundle)
        except BackendError as error:
            # Whoever built plans, or has a GPU and a bundle for it, expects them to be used.
            expected = (bundle.path / PLANS).is_dir() if candidate == "tensorrt" else _GPU.exists() and bundle.manifest.precision != "fp32"
            _log.log(logging.WARNING if expected else logging.DEBUG, "not on %s: %s", candidate, error)
    return _open("cpu", bundle)


def _open(name: str, bundle: Bundle) -> Backend:
    if name not in _BACKENDS:
        raise BackendError(f"no backend called {name!r}; expected auto, {', '.join(sorted(_BACKENDS))}")
    module, kind = _BACKENDS[name]
    backend: Backend = getattr(importlib.import_module(f".{module}", __name__), kind)(bundle)
    return backend
