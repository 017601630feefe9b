"""The C++ library as `make test-cpp` built it, beside the Python runtime."""

import os
from pathlib import Path

import pytest

import janus_runtime
from janus_runtime.bundle.bundle import NANO
from testing.c_library import Library, Model, find_onnxruntime

BUILD = os.environ.get("JANUS_CPP_BUILD")


def pytest_ignore_collect() -> bool | None:
    """`make test` passes where no compiler is."""
    return None if BUILD else True


@pytest.fixture(scope="session")
def build() -> Path:
    assert BUILD is not None
    return Path(BUILD).resolve()


@pytest.fixture(scope="session")
def onnxruntime_library() -> Path:
    return find_onnxruntime()


@pytest.fixture(scope="session")
def library(build) -> Library:
    return Library(build / "libjanus.so")


@pytest.fixture(scope="session")
def nano(library, onnxruntime_library):
    """(C++, Python), both of janus-nano in fp32."""
    with Model(library, NANO, onnxruntime_library) as model, janus_runtime.load(NANO, "cpu") as janus:
        yield model, janus


@pytest.fixture(scope="session")
def load_both(bundles, library, onnxruntime_library):
    """`load_both(model, precision, only=…)` -> (C++, Python) of a bundle of the tests; `load_both(path)` of one that is there."""
    opened = []

    def load(model="tiny", precision="fp32", **options):
        path = model if isinstance(model, Path) else bundles(model, precision, **options)
        opened.append((Model(library, path, onnxruntime_library), janus_runtime.load(path, "cpu")))
        return opened[-1]

    yield load
    for model, janus in opened:
        model.__exit__()
        janus.close()
