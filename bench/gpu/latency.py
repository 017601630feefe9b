"""How fast is a bundle on a GPU, in rows and share of what its memory allows?

    python -m bench.gpu.latency BUNDLE --backend tensorrt --rows 2 --out bench/results/gpu-1b-2-tensorrt.json

Steps are those of real draws, queued ahead: the time between ids as they arrive, over a tenth of the picture at its beginning,
middle and end. A step's floor is the bytes that it must read, over the bandwidth at which this card copied in the same run.
"""

import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from bench.gpu.machine import BACKENDS, about, device_of, free_gb, open_janus
from bench.machine import write_report
from janus_runtime.checks.latency import PROMPT_TOKENS, QUESTION_TOKENS, Timing, stages, time_stages
from janus_runtime.console.commands import FiniteFloat
from janus_runtime.console.errors import report_errors
from janus_runtime.decoding.engines import Engines
from janus_runtime.decoding.sessions import open_session
from janus_runtime.errors import JanusError
from janus_runtime.janus import Janus
from janus_runtime.sampling.guidance import Pairs, Plain
from janus_runtime.sampling.sampler import Sampler
from testing.sessions import draw, prefill

_PROMPT = "a red circle left of the blue square"
_ANSWER_TOKENS = 64
_COPIES = 10


def copy_bandwidth(device: Any, size: int) -> float:
    """GB/s at which the device copies within its memory, read and written bytes together: the best of five times ten copies."""
    with device.lock:
        return _copy_bandwidth(device, size)


def _copy_bandwidth(device: Any, size: int) -> float:
    source, target = (device.empty((size,), "uint8") for _ in range(2))
    device.clear(source)

    def copies() -> None:
        for _ in range(_COPIES):
            if hasattr(device, "stream_handle"):
                from cuda.bindings import driver

                (status,) = driver.cuMemcpyDtoDAsync(target.ptr, source.ptr, size, device.stream_handle)
                if status != driver.CUresult.CUDA_SUCCESS:
                    raise JanusError(f"a copy of {size} bytes gave {status.name}")
            else:
                device.queue(lambda: np.copyto(target, source))

    best = 0.0
    for _ in range(6):
        device.event().wait()
        start = time.perf_counter()
        copies()
        device.event().wait()
        best = max(best, 2 * _COPIES * size / (time.perf_counter() - start) / 1e9)
    return best


def image_steps(engines: Engines, rows: int, repeats: int) -> list[list[float]]:
    """When each id of a picture was there, in seconds, for `repeats` draws after one that captures.

    Raises JanusError where the backend gives other rows than asked for.
    """
    output, vocabulary = engines.manifest.image_output, engines.manifest.language_model.vocab_size
    built = engines.backend.limits.rows if engines.backend.limits else None
    if built is not None and rows not in built:
        raise JanusError(f"{rows} rows were asked for, the plans have {', '.join(map(str, built))}; build them with --rows {rows}")
    session = open_session(engines, "image", rows, PROMPT_TOKENS + output.num_tokens)
    prompt = [engines.embed_text(np.random.default_rng(1).integers(0, vocabulary, PROMPT_TOKENS, dtype=np.int32))] * rows
    weight = engines.manifest.defaults.cfg_weight
    times = []
    for _ in range(1 + repeats):
        for row in range(rows):
            session.truncate(row)
        logits = prefill(session, prompt, "image")
        times.append([time.perf_counter() for _ in draw(session, logits, output.num_tokens, Sampler(), range(rows // 2), Pairs(weight))])
    session.close()
    return times[1:]


def text_step_ms(engines: Engines, length: int, repeats: int) -> float:
    """A step of an answer after `length` tokens, of real draws of one row."""
    session = open_session(engines, "text", 1, length + _ANSWER_TOKENS)
    count = min(_ANSWER_TOKENS, session.max_length - length)
    prompt = [engines.embed_text(np.zeros(length, np.int32))]
    spent = []
    for _ in range(1 + repeats):
        session.truncate(0)
        drawn = draw(session, prefill(session, prompt, "text"), count, Sampler(0), [0], Plain())
        times = [time.perf_counter() for _ in drawn]
        # The last is a draw alone, with no step behind it.
        spent.append((times[-2] - times[0]) / (len(times) - 2))
    session.close()
    return median(spent[1:]) * 1e3


def windows(steps: int) -> dict[str, tuple[int, int]]:
    """Which ids the beginning, the middle and the end of a picture lie between. The last id has no step behind it."""
    tenth = max(1, steps // 10)
    return {
        "early": (0, tenth),
        "middle": ((steps - tenth) // 2, (steps + tenth) // 2),
        "late": (steps - 2 - tenth, steps - 2),
        "all": (0, steps - 2),
    }


def step_report(times: list[list[float]], reads: tuple[int, int], bandwidth: float) -> dict[str, dict[str, float]]:
    """Window -> ms of a step, median over draws, the floor and the share of it.

    `reads`: bytes that the first and the last step of a picture cannot do without.
    """
    steps = len(times[0])
    report = {}
    for name, (first, last) in windows(steps).items():
        ms = median((draw[last] - draw[first]) / (last - first) for draw in times) * 1e3
        needed = float(np.interp((first + last + 1) / 2, [0, steps - 1], reads))
        report[name] = {"ms": ms, "reads": needed, "gb_per_s": needed / ms / 1e6, "share": needed / bandwidth / ms / 1e6}
    return report


def whole_stages(engines: Engines, rows: int, seconds: float) -> tuple[list[Timing], dict[str, int]]:
    """Timings of all stages but steps, whose calls go by way of the host; and what each stage must read, in bytes."""
    found = list(stages(engines, rows))
    timings = time_stages([stage for stage in found if "step" not in stage.name], runs=200, seconds=seconds)
    return timings, {stage.name: stage.reads for stage in found}


def first_picture(janus: Janus, rows: int) -> dict[str, float]:
    """From prompt to PIL, the second time: ms to the first picture and to all of them, and pictures a second."""
    count = rows // 2
    arrived: list[float] = []
    for _warm in range(2):
        arrived.clear()
        start = time.perf_counter()
        for _ in janus.stream(_PROMPT, count, batch_size=count):
            arrived.append(time.perf_counter())
    first, last = arrived[0] - start, arrived[-1] - start
    return {"first_ms": first * 1e3, "all_ms": last * 1e3, "images_per_s": count / last}


def measure(janus: Janus, rows: int, repeats: int, seconds: float, copy_bytes: int) -> dict[str, Any]:
    """Everything about one bundle, backend and row count."""
    engines, device = janus._engines, device_of(janus)
    timings, reads = whole_stages(engines, rows, seconds)
    times, picture = image_steps(engines, rows, repeats), first_picture(janus, rows)
    text_ms = None
    if "text step" in reads:
        image, model = engines.manifest.image_input, engines.manifest.language_model
        text_ms = text_step_ms(engines, min(image.num_tokens + QUESTION_TOKENS, model.max_length - _ANSWER_TOKENS), repeats)
    # The copies' own memory is no part of what a bundle takes.
    free = free_gb(device)
    bandwidth = copy_bandwidth(device, copy_bytes)
    report: dict[str, Any] = {
        "copy_gb_per_s": bandwidth,
        "free_gb": free,
        "steps": step_report(times, (reads["image step, early"], reads["image step, late"]), bandwidth),
        "stages": {timing.stage: {"p50": timing.p50, "p95": timing.p95, "runs": timing.runs} for timing in timings},
        "picture": picture,
    }
    if text_ms is not None:
        report["text_step"] = {"ms": text_ms, "share": reads["text step"] / bandwidth / text_ms / 1e6}
    return report


@click.command()
@click.argument("bundle")
@click.option("--backend", type=click.Choice([name for name in BACKENDS if name != "cpu"]), required=True)
@click.option("--rows", default=2, show_default=True, type=click.IntRange(2), help="Two for each picture.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Pictures whose steps are timed.")
@click.option("--seconds", type=FiniteFloat(), default=10.0, show_default=True, help="For the other stages together.")
@click.option("--copy-mb", default=2048, show_default=True, type=click.IntRange(1), help="What the bandwidth is measured with.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--debug", is_flag=True)
def main(bundle: str, backend: str, rows: int, repeats: int, seconds: float, copy_mb: int, out: Path, debug: bool) -> None:
    """Time BUNDLE."""
    with report_errors(debug):
        start = time.perf_counter()
        with open_janus(bundle, backend) as janus:
            device = device_of(janus)
            before = free_gb(device)
            janus._engines.open(*janus._engines.graphs_of("image"), "text_embed", "image_decoder")
            load_s, loaded = time.perf_counter() - start, free_gb(device)
            report = {
                "question": "steps, stages, pictures and memory on a GPU",
                "system": f"janus-rt {backend}",
                **about(janus),
                "rows": rows,
                "load_s": load_s,
                "free_gb_before": before,
                "free_gb_loaded": loaded,
                **measure(janus, rows, repeats, seconds, copy_mb << 20),
            }
        write_report(out, report)
        for name, row in report["steps"].items():
            click.echo(f"{report['system']} {rows} rows, step {name:7}{row['ms']:9.3f} ms{row['share']:7.1%} of the floor")
        click.echo(f"{report['picture']}")


if __name__ == "__main__":
    main()
