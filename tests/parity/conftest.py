"""Each parity test runs for every model below, with the runtime and the reference loaded once."""

import pytest

import janus_runtime
from testing.reference import Reference


# Two sets of sizes: an accident of equal widths in one would not be one in the other. `tiny` has Janus-Pro's template, `small`
# Janus-1.3B's.
@pytest.fixture(scope="session", params=["tiny", "small"])
def model(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def reference(model, checkpoints) -> Reference:
    return Reference.load(checkpoints(model))


@pytest.fixture(scope="session")
def runtime(model, bundles):
    with janus_runtime.load(bundles(model), backend="cpu") as opened:
        yield opened
