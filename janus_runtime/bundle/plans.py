"""TensorRT plans in a bundle: `plans/<gpu>-<library version>/` with one plan a graph and `plans.json`, their key.

A plan runs on the GPU and with the library that built it, and holds the weights of its day: the key says all of that and is
checked before a plan is opened.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BackendError, BundleError
from .bundle import Bundle
from .interface import Flavour
from .manifest import WEIGHTS
from .strict_json import LargeInt, parse

PLANS = "plans"
KEY = "plans.json"
FORMAT = 2


@dataclass(frozen=True)
class Plan:
    """`graph_sha256` is the manifest's, of the graph that it was built from."""

    file: str
    bytes: LargeInt
    sha256: str
    graph_sha256: str


@dataclass(frozen=True)
class PlanSet:
    """The key. `rows` and `lengths`: which row counts and cache lengths a step was built for, in rising order.

    `chunk` is how many tokens the decoder takes at once.
    """

    format: int
    library: str
    version: str
    gpu: str
    compute_capability: str
    flavour: Flavour
    weights_sha256: str
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    chunk: int
    plans: dict[str, Plan]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def folder_name(gpu: str, version: str) -> str:
    """`NVIDIA H200`, `8.6.0` -> `nvidia-h200-8.6.0`."""
    return f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}-{version}"


def built_for(bundle: Path) -> list[str]:
    """The folders of plans in a bundle, by name. What is unfinished does not count."""
    return sorted(path.parent.name for path in (bundle / PLANS).glob(f"[!.]*/{KEY}"))


def find_plans(bundle: Bundle, library: str, version: str, gpu: str, compute_capability: str) -> tuple[Path, PlanSet]:
    """The folder of this GPU's plans and their key. Raises BackendError where there are none, or they are not for this bundle,
    GPU or library, or not whole."""
    build = f"run 'janus-export engines {bundle.path}' on this machine"
    folder = bundle.path / PLANS / folder_name(gpu, version)
    if not (folder / KEY).is_file():
        others = built_for(bundle.path)
        there = f"only for {', '.join(others)}" if others else "none at all"
        raise BackendError(f"{bundle.path} has no TensorRT plans for {gpu} and {library} {version} ({there}); {build}")
    try:
        value = json.loads((folder / KEY).read_text(encoding="utf-8"))
        plans: PlanSet = parse(PlanSet, value, str(folder / KEY))
    except (OSError, ValueError, BundleError) as error:
        raise BackendError(f"{folder / KEY} cannot be read: {error}; {build}") from None
    files = bundle.manifest.files
    for what, got, expected in (
        ("format", plans.format, FORMAT),
        ("library", plans.library, library),
        ("version", plans.version, version),
        ("GPU", plans.gpu, gpu),
        ("compute capability", plans.compute_capability, compute_capability),
        ("weights", plans.weights_sha256, files[WEIGHTS].sha256),
        *((f"graph {name}", plan.graph_sha256, _graph_sha256(bundle, name)) for name, plan in plans.plans.items()),
    ):
        if got != expected:
            raise BackendError(f"the plans in {folder} are of {what} {_short(got)}, expected {_short(expected)}; {build}")
    for name, plan in plans.plans.items():
        path = folder / plan.file
        size = path.stat().st_size if path.is_file() else None
        if size != plan.bytes:
            raise BackendError(f"{path}, the plan of {name}, has {'no' if size is None else size} bytes, expected {plan.bytes}; {build}")
    return folder, plans


def context_without_memory(trt: Any, engine: Any) -> Any:
    """A context of an open plan, whose scratch memory is the caller's; None where TensorRT, of whatever name and version, fails."""
    if hasattr(trt, "ExecutionContextAllocationStrategy"):
        return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    return engine.create_execution_context_without_device_memory()


def _graph_sha256(bundle: Bundle, name: str) -> str | None:
    graph = bundle.manifest.graphs.get(name)
    return bundle.manifest.files[graph.file].sha256 if graph else None


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
