"""How long is the host busy with one step that a GPU repeats? Measured without a GPU: every call of a driver or a library does nothing.

    python -m bench.gpu.host_step BUNDLE [--rows 2] [--out bench/results/host-step.json]

What is left is ours: locks, threads, and the Python around each call. BUNDLE gives names, shapes and counts of tensors; its weights are not
read. A step can be no faster than this, however fast the GPU is.
"""

import itertools
import statistics
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np

from bench.machine import where, write_report
from janus_runtime.backends.ort_cuda import OrtCuda
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.decoding.capture import Repeat
from janus_runtime.decoding.device import DecoderLimits
from janus_runtime.decoding.device_loop import LoopEngines, LoopPool
from janus_runtime.decoding.device_session import DeviceSession
from janus_runtime.decoding.engines import ENDS, Engines
from janus_runtime.sampling.draw import Draw
from janus_runtime.sampling.guidance import Pairs
from janus_runtime.sampling.sampler import Sampler
from testing.fake_cuda import FakeCuda, FakeStream

STEPS = 400
_PROMPT = 20
# Steps that are queued with the first two, one of them plain and one recorded.
_RECORDED = 2


class _Nothing(list):
    """A queue of work that is never done."""

    def append(self, work: object) -> None:
        pass

    def extend(self, work: object) -> None:
        pass


class NullCuda(FakeCuda):
    """Memory without bytes, and work that nobody does; page-locked memory is real, since the host reads it."""

    def __init__(self) -> None:
        super().__init__(limit=2**50)
        addresses = itertools.count(2**40, 2**36)
        self.device_memory = SimpleNamespace(allocate=lambda size, stream: SimpleNamespace(handle=next(addresses), size=size))
        self.core.Device(0).create_stream = self._null_stream
        self.session = lambda cuda, *arguments, **options: _NullSession()

    def point(self, name: str) -> None:
        pass

    def _null_stream(self) -> FakeStream:
        stream = FakeStream(self)
        stream.work = _Nothing()
        return stream


class _NullSession:
    """A session of ONNX Runtime whose runs do nothing."""

    def run_with_iobinding(self, binding: object, options: object) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider"]

    def io_binding(self) -> SimpleNamespace:
        return SimpleNamespace(bind_input=_ignore, bind_output=_ignore, bind_cpu_input=_ignore)

    def release_captured_graph(self, number: int) -> None:
        pass


def _ignore(*arguments: object) -> None:
    pass


def measure(path: Path, rows: int, rounds: int) -> dict[str, float]:
    """Microseconds of the host for one step, by each way to repeat it, in turn: the median."""
    bundle = Bundle.open(path)
    with NullCuda().installed():
        backend = OrtCuda(bundle)
        engines = Engines(bundle, backend)
        ways: dict[str, DecoderLimits] = {
            "ONNX Runtime, every call made anew": replace(backend.limits, replay=Repeat),
            "ONNX Runtime, kept calls": backend.limits,
            "TensorRT, one captured graph": replace(backend.limits, replay=backend.limits.device.capture),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, limits in ways.items():
                times[name].append(_step(limits, engines, rows))
        engines.close()
    return {name: round(statistics.median(each) * 1e6, 1) for name, each in times.items()}


def _step(limits: DecoderLimits, engines: Engines, rows: int) -> float:
    """Seconds a step of one draw, but for the first ones, in which calls are recorded. Steps are queued many at a time."""
    embed, head = engines[ENDS["image"][0]], engines[ENDS["image"][1]]
    graphs: Any = LoopEngines(embed, engines.language_model, head, None)  # type: ignore[arg-type]
    with DeviceSession(limits, graphs, LoopPool(), rows, _PROMPT + STEPS) as session:
        session.lengths[:] = _PROMPT
        num_ids = int(head.spec.outputs["logits"].shape[-1])
        logits, draws = list(np.zeros((rows, num_ids), np.float32)), [Draw(0, 0, Sampler(), Pairs(5.0))] * (rows // 2)
        drawn = session.draw(logits, range(rows), draws, STEPS)
        for _ in range(_RECORDED):
            next(drawn)
        start = time.perf_counter()
        for _ in drawn:
            pass
        return (time.perf_counter() - start) / (STEPS - _RECORDED)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", default=2, show_default=True, type=click.IntRange(2))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
def main(bundle: Path, rows: int, rounds: int, out: Path | None) -> None:
    """Microseconds of the host in a step, by backend."""
    times = measure(bundle, rows, rounds)
    for name, microseconds in times.items():
        click.echo(f"{name:36} {microseconds:7.1f} us")
    if out:
        manifest = Bundle.open(bundle).manifest
        question = "host time of one replayed step, with drivers and libraries that do nothing"
        layers = manifest.language_model.num_layers
        write_report(out, {"question": question, "layers": layers, "rows": rows, **where(), "median_us": times})


if __name__ == "__main__":
    main()
