"""Fixtures that take bundles from a folder, where the exporter is not installed: see `tests/export_bundles.py`."""

import os
from pathlib import Path

import pytest


def bundle_name(model: str, precision: str, only: str | None) -> str:
    return "-".join(filter(None, (model, precision, only)))


@pytest.fixture(scope="session")
def bundles():
    """`bundles(model, precision, only=…)` -> folder. One that is not there is an error: a skip would hide the tests that need it."""
    folder = Path(os.environ["JANUS_TEST_BUNDLES"]).resolve()

    def get(model: str = "tiny", precision: str = "fp32", *, only: str | None = None) -> Path:
        path = folder / bundle_name(model, precision, only)
        assert path.is_dir(), f"no bundle at {path}; add it to BUNDLES in tests/export_bundles.py and run that again"
        return path

    return get


@pytest.fixture(scope="session")
def checkpoints():
    pytest.skip("needs the exporter: run without JANUS_TEST_BUNDLES")
