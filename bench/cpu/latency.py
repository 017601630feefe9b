"""How long does each stage take, in every precision, beside what users run today and beside an earlier version? One run, in turn.

    python -m bench.cpu.latency --bundle BUNDLE --bundle BUNDLE --checkpoint HF_FOLDER --rival bf16 --openvino PYTHON \
        --llama-cpp PYTHON --earlier TREE BUNDLE --out bench/results/X.json

Ratios hold where absolute times do not: every system's stage runs once before any runs again. Bytes a step must read,
over the memory bandwidth measured in the same run, are its floor.
"""

import resource
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click
import torch

import janus_runtime
from bench.bundles import open_manifests
from bench.cpu.rivals import Transformers, earlier, llama_cpp, openvino
from bench.machine import where, write_report
from janus_runtime.checks.latency import Stage, Timing, read_bandwidth, stages, time_stages
from janus_runtime.console.commands import FiniteFloat
from janus_runtime.console.errors import report_errors

_PYTHON = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def picture_ms(timings: dict[str, Timing], tokens: int) -> float | None:
    """A whole picture from its stages: prefill, steps whose time grows evenly from the first to the last, decode.

    None where a stage is missing.
    """
    if not {"image prefill", "image decode"} <= timings.keys():
        return None
    step = (timings["image step, early"].p50 + 2 * timings["image step, middle"].p50 + timings["image step, late"].p50) / 4
    return timings["image prefill"].p50 + (tokens - 1) * step + timings["image decode"].p50


@click.command()
@click.option("--bundle", "bundles", multiple=True, required=True, metavar="DIR", help="May be given several times.")
@click.option("--checkpoint", type=_FOLDER, help="HF layout, for the rivals.")
@click.option("--rival", "rivals", multiple=True, type=click.Choice(list(_DTYPES)), help="transformers in this dtype.")
@click.option("--openvino", "with_openvino", type=_PYTHON, help="Python with optimum-intel; see `make bench-rivals`.")
@click.option("--llama-cpp", "with_llama_cpp", type=_PYTHON, help="Python with llama-cpp-python; see `make bench-rivals`.")
@click.option(
    "--earlier", "before", type=(_FOLDER, _FOLDER), metavar="TREE BUNDLE",
    help="An earlier version of ours: its work tree, and a bundle that it opens.",
)  # fmt: skip
@click.option("--rows", default=2, show_default=True, type=click.IntRange(1))
@click.option("--seconds", type=FiniteFloat(), default=120.0, show_default=True, help="For all systems together.")
@click.option("--only", metavar="TEXT", default="", help="Stages whose name begins so.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--debug", is_flag=True)
def main(
    bundles: tuple[str, ...], checkpoint: Path | None, rivals: tuple[str, ...], with_openvino: Path | None, with_llama_cpp: Path | None,
    before: tuple[Path, Path] | None, rows: int, seconds: float, only: str, out: Path | None, debug: bool,
) -> None:  # fmt: skip
    """Time BUNDLEs and rivals stage by stage."""
    with report_errors(debug):
        if (rivals or with_openvino or with_llama_cpp) and checkpoint is None:
            raise click.UsageError("rivals need --checkpoint, a folder in the HF layout")
        systems: dict[str, list[Stage]] = {}
        load_s: dict[str, float] = {}
        manifests = open_manifests(bundles)
        with ExitStack() as stack:
            # Processes first, one after the other: what they take while they export is free again before ours are loaded.
            processes = []
            if before:
                processes.append(stack.enter_context(earlier(*before, rows)))
            for bits in (8, 4) if with_openvino else ():
                processes.append(stack.enter_context(openvino(with_openvino, checkpoint, bits, rows)))
            if with_llama_cpp:
                processes.append(stack.enter_context(llama_cpp(with_llama_cpp, checkpoint, "Q4_0", rows)))
            for bundle, manifest in zip(bundles, manifests, strict=True):
                name = f"janus-rt {manifest.precision}"
                start = time.perf_counter()
                engines = stack.enter_context(janus_runtime.load(bundle, "cpu"))._engines
                for graph in manifest.graphs:
                    engines[graph]
                load_s[name] = time.perf_counter() - start
                systems[name] = list(stages(engines, rows))
            systems |= {process.name: list(process.stages()) for process in processes}
            for rival in rivals:
                start = time.perf_counter()
                contender = Transformers(checkpoint, _DTYPES[rival])
                load_s[f"transformers {rival}"] = time.perf_counter() - start
                systems[f"transformers {rival}"] = list(contender.stages(rows))
            chosen = {name: [stage for stage in found if stage.name.startswith(only)] for name, found in systems.items()}
            bandwidth = read_bandwidth()
            timings = iter(time_stages([stage for found in chosen.values() for stage in found], runs=1000, seconds=seconds))
            results = {name: {stage.name: next(timings) for stage in found} for name, found in chosen.items()}
        tokens = manifests[0].image_output.num_tokens
        report = {
            "question": "latency of every stage, systems in turn",
            "model": manifests[0].source.name,
            "random_weights": manifests[0].random_weights,
            **where(),
            "bandwidth_gb_per_s": bandwidth,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
            "rows": rows,
            "load_s": load_s,
            "others": {process.name: process.about for process in processes},
            "results": {name: {stage: asdict(timing) for stage, timing in row.items()} for name, row in results.items()},
        }
        for name, row in results.items():
            for timing in row.values():
                share = f"{timing.gb_per_s:7.1f} GB/s, {timing.gb_per_s / bandwidth:4.0%}" if timing.reads else ""
                click.echo(f"{name:22}{timing.stage:20}{timing.p50:9.1f}{timing.p95:9.1f} ms{timing.runs:5}{share}")
            if picture := picture_ms(row, tokens):
                click.echo(f"{name:22}{'picture':20}{picture:9.1f}")
        if out:
            write_report(out, report)


if __name__ == "__main__":
    main()
