"""Tests of the server over Ray Serve. Those of its parts need Ray's package, those of the whole start a cluster on loopback."""

import importlib.util
import warnings

import pytest

_IS_THERE = importlib.util.find_spec("ray") is not None
if _IS_THERE:
    with warnings.catch_warnings():
        # Ray's own lines raise them, as it is imported.
        warnings.simplefilter("ignore")
        import ray.serve  # noqa: F401


class _SkippedModule(pytest.Module):
    def collect(self):
        pytest.skip("ray is not installed, which these tests need: pip install '.[cpu,serve,ray]'")


def pytest_pycollect_makemodule(module_path, parent):
    """Modules of this folder are not imported where Ray is missing."""
    return None if _IS_THERE else _SkippedModule.from_parent(parent, path=module_path)


@pytest.fixture(scope="module")
def expected():
    """What one process gives for each request of the load."""
    import janus_runtime
    from tests.runtime.serve.ray.load import Expected

    with janus_runtime.load(backend="cpu") as janus:
        yield Expected.of(janus)
