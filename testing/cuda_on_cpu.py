"""kernels.cu, compiled by g++ and run on a CPU by the launches of `CudaKernels`."""

import ctypes
import itertools
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from janus_runtime.backends.cuda_array import CudaArray
from janus_runtime.backends.cuda_kernels import PARAMETERS, SOURCE, CudaKernels

SHIM = Path(__file__).with_name("cuda_shim.h")
# Bytes around every array that no kernel may touch.
MARGIN = 256
UNTOUCHED = 0xC5


def compile_for_cpu(gxx, folder):
    """The library with one entry a kernel, `launch_<kernel>(sizes, arguments, backwards)`."""
    parameters = "(const unsigned* sizes, void** arguments, int backwards)"
    entries = "\n".join(
        f'extern "C" int launch_{name}{parameters} {{ return launch({name}, sizes, arguments, backwards); }}' for name in PARAMETERS
    )
    program, library = folder / "program.cpp", folder / "kernels.so"
    program.write_text(f'#include "{SHIM}"\n#include "{SOURCE}"\n{entries}\n')
    # Each rounding is its own, as on a GPU, where the intrinsics keep the compiler from contracting.
    command = [gxx, "-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-shared", "-fPIC"]
    result = subprocess.run([*command, str(program), "-o", str(library)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(library))


def launch(library, kernel, grid, block, arguments, backwards=False):
    """Runs a kernel of `library`; `backwards`: the threads of a block in reverse order."""
    values = [np.asarray(np.uint64(value) if isinstance(value, int) else value) for value in arguments]
    addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
    sizes = (ctypes.c_uint * 4)(*grid, *block)
    status = library[f"launch_{kernel}"](sizes, addresses, backwards)
    assert status == 0, f"{kernel}: some threads of a block wait at a barrier that others left behind"


class CpuGpu:
    """Arrays with margins, and kernels that run at once, every other launch with its threads in reverse order."""

    def __init__(self, library):
        self.kernels = CudaKernels(self._launch)
        self.backwards = itertools.cycle((0, 1))
        self._library = library
        self._memory = []

    def array(self, values):
        values = np.ascontiguousarray(values)
        memory = np.full(values.nbytes + 3 * MARGIN, UNTOUCHED, np.uint8)
        begin = MARGIN + -(memory.ctypes.data + MARGIN) % MARGIN
        memory[begin : begin + values.nbytes] = values.reshape(-1).view(np.uint8)
        self._memory.append((memory, begin, values.nbytes))
        owner = SimpleNamespace(handle=memory.ctypes.data + begin, size=values.nbytes, memory=memory, begin=begin)
        return CudaArray(owner.handle, values.shape, values.dtype, owner)

    @staticmethod
    def read(array):
        begin = array.ptr - array.owner.memory.ctypes.data
        return array.owner.memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape).copy()

    def check_margins(self, kernel):
        for memory, begin, size in self._memory:
            assert (memory[:begin] == UNTOUCHED).all() and (memory[begin + size :] == UNTOUCHED).all(), f"{kernel} wrote out of range"

    def _launch(self, kernel, grid, block, arguments):
        assert block[0] * block[1] <= 1024 and grid[1] <= 65535, (kernel, grid, block)
        launch(self._library, kernel, grid, block, arguments, next(self.backwards))
        self.check_margins(kernel)
