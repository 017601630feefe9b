"""Bundles that many tests share, each exported once a run from a checkpoint the project makes."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

import janus_runtime
from bench.make_checkpoint import make_checkpoint
from janus_export.bundle import export_bundle
from janus_export.checkpoint import open_checkpoint

# Nothing in the tests may reach for a hub by accident; the hub test brings its own on loopback.
os.environ["HF_HUB_OFFLINE"] = "1"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the published tokenizer and pictures are not at {SHARED_DATA}")
    return SHARED_DATA


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


@pytest.fixture(scope="session")
def tiny(bundles) -> Path:
    return bundles("tiny")


@pytest.fixture(scope="session")
def janus(tiny):
    with janus_runtime.load(tiny, backend="cpu") as opened:
        yield opened


@pytest.fixture
def run():
    """`run(main, "generate", …)` -> click's result, stdout and stderr apart."""
    return lambda main, *arguments, **options: CliRunner().invoke(main, [str(a) for a in arguments], **options)
