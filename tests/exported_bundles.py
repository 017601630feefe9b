"""Fixtures that export what tests ask for, each once a run, from checkpoints the project makes. Needs torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from janus_export import bundle as bundle_module
from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.onnx import trace
from janus_export.precision import format_of
from testing.make_checkpoint import make_checkpoint

# The models are so small that torch's threads mostly wait for one another, and for seconds where a core is taken.
torch.set_num_threads(1)


@contextmanager
def shared_traces() -> Iterator[None]:
    """A trace is nearly all the time of a small export and depends on the graph, the configuration and the dtype alone.

    Exports of one model, in several precisions or of several checkpoints, share theirs here; what follows a trace is done anew.
    Names of nodes are other numbers than without this.
    """
    traces, export_graph, traced = {}, bundle_module.export_graph, trace._traced

    def export(spec, config, precision, *others):
        def once(module, inputs, outputs, *how):
            key = spec.name, repr(config), format_of(spec.name, precision).dtype, type(module)
            if key not in traces:
                traces[key] = traced(module, inputs, outputs, *how)
            return traces[key].clone()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trace, "_traced", once)
            return export_graph(spec, config, precision, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_module, "export_graph", export)
        yield


@pytest.fixture(scope="session", autouse=True)
def traced_once():
    with shared_traces():
        yield


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """`checkpoints(model, layout, …)` -> folder, made on first use."""
    made = {}

    def get(model: str = "tiny", layout: str = "hf", format: str = "safetensors", dtype: str = "fp32", **options) -> Path:
        key = (model, layout, format, dtype, *sorted(options.items()))
        if key not in made:
            out = tmp_path_factory.mktemp("checkpoint") / f"{model}-{layout}-{format}"
            made[key] = make_checkpoint(model, out, layout, format, dtype, **options)
        return made[key]

    return get


@pytest.fixture(scope="session")
def bundles(checkpoints, tmp_path_factory):
    """`bundles(model, precision, …)` -> folder, exported on first use. Tests must not change it."""
    made = {}

    def get(model: str = "tiny", precision: str = "fp32", layout: str = "hf", format: str = "safetensors", only=None) -> Path:
        key = (model, precision, layout, format, only)
        if key not in made:
            out = tmp_path_factory.mktemp("bundle") / model
            export_bundle(open_checkpoint(str(checkpoints(model, layout, format))), out, precision, only)
            made[key] = out
        return made[key]

    return get
