"""What `bench.gpu.first` asks of a GPU, a function each. A function returns its result as JSON can hold it, or raises."""

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu import parity
from bench.gpu.machine import describe, free_gb, versions
from bench.gpu.place import ALWAYS, RECORD, ROOT, Place, Skipped, run_module
from janus_runtime.bundle.bundle import NANO, Bundle
from janus_runtime.decoding.kv_cache import upload_new
from janus_runtime.decoding.sessions import open_session
from janus_runtime.errors import Cancelled, JanusError, NumericalError
from janus_runtime.janus import Janus, janus_over
from janus_runtime.sampling.guidance import Pairs
from janus_runtime.sampling.sampler import Sampler
from testing.sessions import draw

_PROMPTS = ("a red circle", "two small green crosses on black")
_SEEDS = 10
# A picture of janus-nano grows through all of them.
_LENGTHS = (32, 64, 96, 480)
_COPIED = 2**30


def machine(place: Place) -> dict:
    """What is here: GPU, driver, libraries."""
    device = place.device()
    shown = subprocess.run(["nvidia-smi", "-q", "-d", "CLOCK,POWER"], capture_output=True, text=True) if not place.stand_ins else None
    return {"device": describe(device), "free_gb": free_gb(device), "versions": versions(), "nvidia_smi": shown and shown.stdout[:4000]}


def ceilings(place: Place) -> dict:
    """GB/s at which the card copies, and reads alone, which is what a step's floor is made of."""
    from bench.gpu.latency import copy_bandwidth

    device, rows = place.device(), 256
    size = 2**20 if place.stand_ins else _COPIED
    copied = copy_bandwidth(device, size)
    with device.lock:
        logits, active = device.empty((rows, size // rows // 4), "float32"), device.empty((rows,), "int32")
        step, bad = device.empty((rows,), "int32"), device.empty((rows,), "int32")
        for array in (logits, step, bad):
            device.clear(array)
        device.upload(np.ones(rows, np.int32), active)
        seconds = _seconds(device, lambda: device.kernels.check(logits, active, step, bad))
    return {"copy_gb_per_s": copied, "read_gb_per_s": size / seconds / 1e9}


def kernels(place: Place) -> dict:
    """Our kernels beside NumPy on the same numbers, and how long each takes."""
    from testing.kernel_cases import cases
    from testing.numpy_device import NumpyDevice

    device, differences, times = place.device(), {}, {}
    for name, kernel, values in cases(large=not place.stand_ins):
        reference, expected = NumpyDevice(), [value.copy() if isinstance(value, np.ndarray) else value for value in values]
        getattr(reference.kernels, kernel)(*expected)
        reference.download(np.zeros(1))
        with device.lock:
            arrays = [upload_new(device, value) if isinstance(value, np.ndarray) else value for value in values]
            getattr(device.kernels, kernel)(*arrays)
            for array, wanted in zip(arrays, expected, strict=True):
                if isinstance(wanted, np.ndarray):
                    differences[name] = max(differences.get(name, 0), int(_differ(device.download(array), wanted)))
            times[name] = round(1e6 * _seconds(device, lambda k=kernel, a=arrays: getattr(device.kernels, k)(*a)), 2)  # type: ignore[misc]
    if wrong := {name: count for name, count in differences.items() if count}:
        raise JanusError(f"kernels differ from NumPy in {wrong} numbers; times in us: {times}")
    return {"cases": len(differences), "microseconds": times}


def sanitizer(place: Place) -> dict:
    """NVIDIA's checker of memory and races over our kernels."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None or place.stand_ins:
        raise Skipped("compute-sanitizer is not here")
    found = {}
    for kind in ("memcheck", "racecheck"):
        code = "from bench.gpu import sections; sections.small_kernels()"
        result = subprocess.run([tool, "--tool", kind, sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        summary = [line for line in result.stdout.splitlines() if "SUMMARY" in line]
        found[kind] = summary[-1].strip("= ") if summary else result.stdout[-300:]
        if result.returncode or not summary or " 0 " not in f" {summary[-1]} ":
            raise JanusError(f"{kind}: {found[kind]}")
    return found


def small_kernels() -> None:
    """What the sanitizer runs."""
    from testing.kernel_cases import cases

    device = Place(False, Path(), Path(), Path()).device()
    with device.lock:
        for _, kernel, values in cases(large=False):
            getattr(device.kernels, kernel)(*(upload_new(device, value) if isinstance(value, np.ndarray) else value for value in values))
        device.event().wait()


def loop(place: Place) -> dict:
    """The device loop over torch's modules, janus-nano in fp32: the CPU's ids through growing caches, NaN, cancelling, threads, leaks."""
    from testing.torch_engine import TorchBackend

    with janus_over(Bundle.open(NANO), TorchBackend(ROOT / "nano" / "janus-nano", place.device(), _LENGTHS)) as janus:
        goldens = {check.graph: check.difference for check in janus.verify_goldens() if not check.passed}
        expected = json.loads((ROOT / "bench" / "gpu" / "nano_ids.json").read_text())
        drawn = {prompt: [picture.image_ids.tolist() for picture in janus.generate(prompt, _SEEDS)] for prompt in _PROMPTS}
        equal = sum(ids == wanted for prompt in _PROMPTS for ids, wanted in zip(drawn[prompt], expected[prompt], strict=True))
        found = {
            "pictures": len(_PROMPTS) * _SEEDS,
            "equal": equal,
            "goldens_off": goldens,
            **robust(janus, drawn[_PROMPTS[0]][0], place.draws),
        }
    if goldens or equal < found["pictures"]:
        raise JanusError(f"the loop over torch is not the CPU's: {found}")
    return found


def robust(janus: Janus, expected: list[int], draws: int) -> dict:
    """Cancelling, NaN, two threads and `draws` more leave the next picture what it was, and memory where it was."""

    def draw() -> list[int]:
        ids: list[int] = janus.generate(_PROMPTS[0])[0].image_ids.tolist()  # type: ignore[union-attr]
        return ids

    def check(what: str) -> None:
        if draw() != expected:
            raise JanusError(f"after {what} the picture of seed 0 is another")

    check("a first draw")
    event = threading.Event()
    try:
        janus.generate(_PROMPTS[0], on_step=lambda step, total: event.set() if step == 7 else None, cancel=event)
        raise JanusError("a draw that was cancelled went on")
    except Cancelled:
        check("cancelling")
    spread_nan(janus)
    check("NaN in a prompt and in a draw")
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.extend(draw() for _ in range(2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if results != [expected] * 4:
        raise JanusError("two threads that draw at once do not draw what each draws alone")
    device = janus._engines.backend.limits.device  # type: ignore[union-attr]
    before = free_gb(device)
    for _ in range(draws):
        draw()
    return {"free_gb": before, "free_gb_after": free_gb(device), "draws": draws}


def spread_nan(janus: Janus) -> None:
    """NaN in one row's prompt, then in the logits of the other's draw. Raises JanusError where either is not noticed."""
    engines, width = janus._engines, janus.manifest.language_model.hidden_size
    with open_session(engines, "image", 2, 64) as session:
        whole = np.ones((4, width), np.float32)
        good, bad = session.prefill([whole, whole * np.nan], [0, 1], "image")
        if isinstance(good, NumericalError) or not isinstance(bad, NumericalError):
            raise JanusError("NaN in the prompt of one row is not the error of that row alone")
        session.prefill([whole], [1], "image")
        logits = np.full((2, len(good)), np.nan, np.float32)
        with contextlib.suppress(NumericalError):
            next(draw(session, logits, 3, Sampler(), [0], Pairs(5.0)))
            raise JanusError("a draw from logits of NaN was not an error")


def ort_nano(place: Place) -> dict:
    """ONNX Runtime on CUDA: every golden of janus-nano in fp16, and the loop's robustness."""
    return _nano(place, "cuda")


def tensorrt_nano(place: Place) -> dict:
    """TensorRT: plans of janus-nano in fp16, its goldens, and the loop's robustness."""
    if not place.stand_ins:
        print(run_module("janus_export.cli", "engines", str(place.bundle("nano-fp16")), "--lengths", "320"))
    return _nano(place, "tensorrt")


def _nano(place: Place, backend: str) -> dict:
    """Goldens, every step's logits beside the CPU's where those were carried here, and the loop's robustness."""
    record = place.packed / ALWAYS / RECORD
    with place.open("nano-fp16", backend) as janus:
        logits = None
        if record.is_file():
            cpu = parity.read(record)
            logits = parity.compare(cpu, parity.record(janus, *parity.settings(cpu), cpu["ids"]))
        checks = {check.graph: (check.difference, check.tolerance, check.passed) for check in janus.verify_goldens()}
        found = {"goldens": checks, "logits": logits, **robust(janus, janus.generate(_PROMPTS[0])[0].image_ids.tolist(), place.draws)}  # type: ignore[union-attr]
    off = [graph for graph, check in checks.items() if not check[2]]
    if off or (logits and not logits["passed"]):
        raise JanusError(f"not what torch computes: {off}; {found}")
    return found


def speed(name: str, rows: int) -> Callable[[Place], dict]:
    def section(place: Place) -> dict:
        from bench.gpu.latency import measure

        with place.open(name, "cuda") as janus:
            seconds, copied = (1.0, 2**20) if place.stand_ins else (8.0, _COPIED)
            return {"rows": rows, **measure(janus, 2 if place.stand_ins else rows, 1 if place.stand_ins else 3, seconds, copied)}

    return section


def torch_speed(model: str, rows: int, *ways: str) -> Callable[[Place], dict]:
    def section(place: Place) -> dict:
        out = place.work / f"rivals-{model}-{rows}.json"
        small = ["--model", "tiny", "--device", "cpu", "--dtype", "fp32", "--rows", "2", "--way", "eager", "--repeats", "1"]
        large = ["--model", model, "--rows", str(rows), *(part for way in ways for part in ("--way", way))]
        print(run_module("bench.gpu.rivals", *(small if place.stand_ins else large), "--out", str(out)))
        found: dict = json.loads(out.read_text())
        return found

    return section


def _differ(got: Any, expected: Any) -> int:
    """Numbers that differ; those of fp32 may by the last bit of a logarithm."""
    if expected.dtype == np.float32:
        return int((~np.isclose(got, expected, rtol=3e-7, atol=0, equal_nan=True)).sum())
    return int((got != expected).sum())


def _seconds(device: Any, work: Callable[[], None]) -> float:
    """Of one launch, by way of as many as fill a millisecond or more: the best of three."""
    best = float("inf")
    for _ in range(3):
        device.event().wait()
        start = time.perf_counter()
        for _ in range(20):
            work()
        device.event().wait()
        best = min(best, (time.perf_counter() - start) / 20)
    return best


@dataclass(frozen=True)
class Section:
    run: Callable[[Place], dict]
    limit_s: int
    set: str = ""
    """Which set of libraries it needs."""
    bundles: tuple[str, ...] = ()
    """Which packed bundles."""

    @property
    def question(self) -> str:
        return (self.run.__doc__ or "Steps, stages, pictures and memory, beside the floor of the card's bandwidth.").strip().splitlines()[0]


# In this order. Three calls of a machine that has a GPU: up to `loop`; ONNX Runtime and 1B; 7B. TensorRT is for another day.
SECTIONS: dict[str, Section] = {
    "machine": Section(machine, 30),
    "ceilings": Section(ceilings, 40),
    "kernels": Section(kernels, 60),
    "sanitizer": Section(sanitizer, 60),
    "loop": Section(loop, 120),
    "torch-1b-2": Section(torch_speed("janus-pro-1b", 2, "eager", "captured"), 90),
    "ort-nano": Section(ort_nano, 120, "ort", ("nano-fp16",)),
    "ort-1b-2": Section(speed("1b-fp16", 2), 120, "ort", ("1b-fp16",)),
    "ort-1b-32": Section(speed("1b-fp16", 32), 90, "ort", ("1b-fp16",)),
    "torch-1b-32": Section(torch_speed("janus-pro-1b", 32, "captured"), 60),
    "ort-7b-2": Section(speed("7b-fp16", 2), 150, "ort", ("7b-fp16",)),
    "ort-7b-32": Section(speed("7b-fp16", 32), 100, "ort", ("7b-fp16",)),
    "torch-7b-2": Section(torch_speed("janus-pro-7b", 2, "eager", "captured"), 90),
    "torch-1b-compiled": Section(torch_speed("janus-pro-1b", 2, "compiled"), 120),
    "tensorrt-nano": Section(tensorrt_nano, 300, "trt86", ("nano-fp16",)),
}


def _fail(place: Place) -> dict:
    raise JanusError("this section always fails")


def _hang(place: Place) -> dict:
    for _ in itertools.count():
        time.sleep(1)
    return {}


# For the tests of the sections' runner.
TEST_SECTIONS = {"fails": Section(_fail, 30), "hangs": Section(_hang, 6)}


def run_section(name: str, place: Place) -> dict:
    place.work.mkdir(parents=True, exist_ok=True)
    return (SECTIONS | TEST_SECTIONS)[name].run(place)
