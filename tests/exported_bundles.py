"""Fixtures that export what tests ask for, each once a run, from checkpoints the project makes. Needs torch."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from filelock import FileLock

from janus_export import bundle as bundle_module
from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.onnx import trace
from janus_export.precision import format_of
from testing.make_checkpoint import make_checkpoint

# The models are so small that torch's threads mostly wait for one another, and for seconds where a core is taken.
torch.set_num_threads(1)

_NOWHERE = "weights-of-a-trace"


@contextmanager
def shared_traces(folder: Path) -> Iterator[None]:
    """A trace is nearly all the time of a small export and depends on the graph, the configuration and the dtype alone.

    Exports of one model, in several precisions or of several checkpoints, share theirs in `folder`, also with other processes; what follows
    a trace is done anew. Names of nodes are other numbers than without this.
    """
    export_graph, traced = bundle_module.export_graph, trace._traced

    def export(spec, config, sizes, precision, *others):
        def once(module, inputs, outputs, *how):
            # A layout names weights, which a trace does not hold; what is made for CPUs becomes so after the trace.
            name = spec.kind if spec.flavour == "cpu" else spec.name
            dtype = format_of(spec.kind, precision, spec.flavour).dtype
            key = repr((name, replace(config, layout="any"), dtype, type(module).__name__, inputs))
            file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.onnx"
            make_once(file, lambda file: _save_trace(traced(module, inputs, outputs, *how), file))
            return _load_trace(file)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trace, "_traced", once)
            return export_graph(spec, config, sizes, precision, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_module, "export_graph", export)
        yield


def _save_trace(model: ir.Model, file: Path) -> None:
    """Weights, of which a trace knows names, types and shapes, are written as if they lay elsewhere."""
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            value.const_value = ir.ExternalTensor(_NOWHERE, 0, 0, value.dtype, name=name, shape=value.shape, base_dir=".")
    part = file.with_suffix(".part")
    ir.save(model, part)
    part.rename(file)


def _load_trace(file: Path) -> ir.Model:
    model = ir.load(file)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = None
    return model


def traces_folder(own: Path) -> Path:
    """Where traces lie: in a folder of this run, or in that of JANUS_TEST_TRACES, which outlasts it."""
    return Path(os.environ.get("JANUS_TEST_TRACES") or own / "traces")


@pytest.fixture(scope="session", autouse=True)
def traced_once(store):
    with shared_traces(traces_folder(store)):
        yield


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """A folder that all processes of a run share."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "store"


def make_once(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`, made by whichever process asks for it first; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            make(path)
    return path


@pytest.fixture(scope="session")
def checkpoints(store):
    """`checkpoints(model, layout, …)` -> folder, made on first use."""

    def get(model: str = "tiny", layout: str = "hf", format: str = "safetensors", dtype: str = "fp32", **options) -> Path:
        rest = "-".join(f"{key}={value}" for key, value in sorted(options.items()))
        name = Path("checkpoints", f"{layout}-{format}-{dtype}-{rest}", f"{model}-{layout}-{format}")
        return make_once(store / name, lambda out: make_checkpoint(model, out, layout, format, dtype, **options))

    return get


@pytest.fixture(scope="session")
def bundles(checkpoints, store):
    """`bundles(model, precision, …)` -> folder, exported on first use. Tests must not change it."""

    def get(model: str = "tiny", precision: str = "fp32", layout: str = "hf", format: str = "safetensors", only=None) -> Path:
        def export(out: Path) -> None:
            export_bundle(open_checkpoint(str(checkpoints(model, layout, format))), out, precision, only)

        return make_once(store / "bundles" / f"{precision}-{layout}-{format}-{only}" / model, export)

    return get
