import shutil

import pytest

from testing.cuda_on_cpu import compile_for_cpu


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """Our kernels, compiled for the CPU."""
    gxx = shutil.which("g++")
    if gxx is None:
        pytest.skip("g++ is not installed, which runs kernels.cu on a CPU")
    return compile_for_cpu(gxx, tmp_path_factory.mktemp("kernels"))
