"""TensorRT plans of a bundle: how long each took to build, how large it is, and what it holds of kernels.

    python -m bench.gpu.plans BUNDLE --rows 2 --lengths 704 --out plans.json

`--library tensorrt_rtx --compute-capability 8.9` builds where there is no GPU; what a plan holds is then not known.
"""

import importlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from bench.gpu.machine import versions
from bench.machine import write_report
from janus_export.tensorrt.plans import LEVEL, build_engines
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.plans import context_without_memory
from janus_runtime.console.errors import report_errors
from janus_runtime.errors import JanusError

# What the inspector lists that runs no kernel.
_NO_KERNEL = frozenset({"Constant", "NoOp", "Signal", "Wait", "ShapeHostToDevice", "DeviceToShapeHost", "shape_call"})


def kernels(information: str) -> dict[str, Any]:
    """The inspector's JSON of one profile -> how many layers run a kernel, and of which kinds."""
    layers = json.loads(information)["Layers"]
    kinds = Counter(layer.get("LayerType", "unknown") if isinstance(layer, dict) else "unknown" for layer in layers)
    running = {kind: count for kind, count in kinds.most_common() if kind not in _NO_KERNEL}
    return {"kernels": sum(running.values()), "kinds": running}


def inspect(library: str, plan: Path) -> dict[str, Any]:
    """The first profile of a plan: steps of the fewest rows and the shortest cache. Raises JanusError."""
    trt = importlib.import_module(library)
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise JanusError(f"{library} {trt.__version__} does not open {plan}; build it again on this machine")
    context, inspector = context_without_memory(trt, engine), engine.create_engine_inspector()
    inspector.execution_context = context
    return kernels(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _numbers(context: click.Context, option: click.Parameter, text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", default="2", show_default=True, callback=_numbers)
@click.option("--lengths", default="704", show_default=True, callback=_numbers)
@click.option("--flavour", type=click.Choice(["slice", "inplace"]))
@click.option("--level", default=LEVEL, show_default=True, type=click.IntRange(0, 5))
@click.option("--library", default="tensorrt", show_default=True)
@click.option("--compute-capability", metavar="8.9", help="Build without a GPU.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--debug", is_flag=True)
def main(
    bundle: Path, rows: Any, lengths: Any, flavour: Any, level: int, library: str, compute_capability: str | None, out: Path, debug: bool
) -> None:
    """Build the plans of BUNDLE and say what they are."""
    with report_errors(debug):
        began: dict[str, float] = {}
        start = time.perf_counter()

        def on_stage(stage: str, share: float) -> None:
            began[stage.removeprefix("building ")] = time.perf_counter() - start
            click.echo(f"{time.perf_counter() - start:6.1f} s  {stage}")

        folder, key = build_engines(bundle, rows, lengths, flavour, level, on_stage, library, compute_capability)
        ends = [*list(began.values())[1:], time.perf_counter() - start]
        manifest = Bundle.open(bundle).manifest
        results: dict[str, Any] = {}
        for (name, beginning), end in zip(began.items(), ends, strict=True):
            weights = manifest.graphs[name].weight_bytes
            results[name] = {"build_s": end - beginning, "bytes": key.plans[name].bytes, "weight_bytes": weights}
        report = {
            "question": "time and size of TensorRT plans, and kernels of a step",
            "model": manifest.source.name, "precision": manifest.precision, "random_weights": manifest.random_weights,
            "library": f"{key.library} {key.version}", "gpu": key.gpu, "versions": versions(),
            "rows": key.rows, "lengths": key.lengths, "flavour": key.flavour, "level": level, "results": results,
        }  # fmt: skip
        # First on file: what follows needs the GPU's memory for one plan more.
        write_report(out, report)
        if compute_capability is None:
            decoder = f"language_model.{key.flavour}"
            for name in (decoder, "image_head"):
                results[name] |= inspect(library, folder / key.plans[name].file)
            per_layer = results[decoder]["kernels"] / manifest.language_model.num_layers
            write_report(out, {**report, "kernels_per_layer": per_layer})
            click.echo(f"{per_layer:.1f} kernels a layer of the decoder")


if __name__ == "__main__":
    main()
