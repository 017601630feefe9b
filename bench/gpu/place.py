"""Where a section of `bench.gpu.first` runs, and with what."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu.machine import open_janus
from janus_runtime.bundle.bundle import NANO
from janus_runtime.errors import JanusError
from janus_runtime.janus import Janus

ROOT = Path(__file__).resolve().parents[2]
# Of what was packed: the folder that travels with every call, and in it the CPU's record of a picture, made by `bench.gpu.parity`.
ALWAYS, RECORD = "always", "nano-cpu.npz"


class Skipped(Exception):
    """A section that cannot run here, and why; not a failure."""


@dataclass(frozen=True)
class Place:
    """Where a section runs: on a GPU, or over stand-ins. `packed` travelled here, `sets` are libraries, `work` is for what is made."""

    stand_ins: bool
    packed: Path
    sets: Path
    work: Path

    @property
    def draws(self) -> int:
        """In search of a leak."""
        return 1 if self.stand_ins else 30

    def options(self) -> list[str]:
        folders = [("--packed", self.packed), ("--sets", self.sets), ("--work", self.work)]
        return [*(["--stand-ins"] if self.stand_ins else []), *(str(each) for pair in folders for each in pair)]

    def device(self) -> Any:
        if self.stand_ins:
            from testing.stand_in import LockedDevice

            return LockedDevice()
        from janus_runtime.backends.cuda_device import CudaDevice

        return CudaDevice()

    def bundle(self, name: str) -> Path:
        """A packed bundle, with the weights that it was packed without; the stand-ins take janus-nano for all."""
        if self.stand_ins:
            return NANO
        source, target = self.packed / name, self.work / name
        if not source.is_dir():
            raise Skipped(f"{source} was not carried here")
        if not target.is_dir():
            # A section that reaches its limit meanwhile leaves no half of it to the next.
            part = target.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(source, part)
            if (part / "seeded.json").is_file():
                run_module("testing.seeded_bundle", "fill", str(part))
            part.rename(target)
        return target

    def open(self, name: str, backend: str) -> Janus:
        stand_in = "stand-in-slice" if backend == "tensorrt" else "stand-in-gqa"
        return open_janus(str(self.bundle(name)), stand_in if self.stand_ins else backend)


def run_module(module: str, *arguments: str) -> str:
    """A module of the project as a command of its own -> what it printed. Raises JanusError with its last line."""
    result = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        raise JanusError(f"{module}: {(result.stderr.strip().splitlines() or ['failed without a word'])[-1]}")
    return result.stdout + result.stderr
