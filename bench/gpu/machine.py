"""Bundles on the backend that a GPU's benchmark asks for, and what a result on one was measured on.

`stand-in-slice` and `stand-in-gqa` are devices of NumPy from the tests: every line of a benchmark can be run where there is no GPU.
"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import janus_runtime
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.janus import Janus, janus_over

STAND_INS = ("stand-in-slice", "stand-in-gqa")
BACKENDS = ("cpu", "cuda", "tensorrt", *STAND_INS)

_STAND_IN_SIZES = {"rows": (2, 8, 16, 32), "lengths": (320, 512, 704), "chunk": 128}
_DISTRIBUTIONS = ("tensorrt", "onnxruntime-gpu", "onnxruntime", "torch", "transformers", "triton", "cuda-core", "cuda-bindings", "numpy")
# Bandwidth in the data sheets, GB/s.
_PEAKS = {"NVIDIA H200": 4800.0, "NVIDIA H100 80GB HBM3": 3350.0, "NVIDIA A100-SXM4-80GB": 2039.0, "NVIDIA L4": 300.0}


def open_janus(bundle: str, backend: str) -> Janus:
    """Raises what `janus_runtime.load` does."""
    if backend not in STAND_INS:
        return janus_runtime.load(bundle, backend)  # type: ignore[arg-type]
    from testing.stand_in import StandIn

    return janus_over(Bundle.open(bundle), StandIn(flavour=backend.rsplit("-", 1)[1], **_STAND_IN_SIZES))


def device_of(janus: Janus) -> Any:
    """The device that its sessions run on; None on a CPU."""
    limits = janus._engines.backend.limits
    return limits.device if limits else None


def about(janus: Janus) -> dict[str, Any]:
    """Model, backend, device and versions, for the head of a report."""
    manifest, device = janus.manifest, device_of(janus)
    return {
        "model": manifest.source.name,
        "precision": manifest.precision,
        "random_weights": manifest.random_weights,
        "backend": janus.backend,
        "description": janus.backend_description,
        "device": describe(device),
        "versions": versions(),
    }


def describe(device: Any) -> dict[str, Any] | None:
    if device is None:
        return None
    total = getattr(device, "total_bytes", None)
    return {
        "name": device.name,
        "compute_capability": getattr(device, "compute_capability", None),
        "memory_gb": total and round(total / 1e9, 1),
        "data_sheet_gb_per_s": _PEAKS.get(device.name),
    }


def free_gb(device: Any) -> float | None:
    free = getattr(device, "free_bytes", None)
    return None if free is None else free / 1e9


def versions() -> dict[str, str]:
    """Of those that are installed. A set of unpacked wheels names its TensorRT only by import."""
    found = {"python": platform.python_version(), "janus-rt": janus_runtime.__version__}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if tensorrt := sys.modules.get("tensorrt"):
        found["tensorrt"] = str(tensorrt.__version__)
    return found
