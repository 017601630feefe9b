"""Each parity test runs for every model below, with the runtime and the reference loaded once."""

import pytest
import torch

import janus_runtime

from .reference import Reference


@pytest.fixture(scope="package", autouse=True)
def one_torch_thread():
    """The models are so small that torch's threads mostly wait for one another, and for seconds where a core is taken."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
