"""How long does an export take beside a plain copy of the checkpoint, and how much memory?

    python -m bench.cpu.export --model janus-pro-7b --format bin --work build/export --out bench/results/export-7b-bin.json

Makes a checkpoint of the model's true shapes with random weights, in the original layout, bf16; copies it; exports it in
each precision, in processes of their own; draws a picture with one of the bundles. Peak memory is the largest resident set, mapped
pages included.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import get_args

import click

from bench.cpu.commands import measure
from bench.machine import where, write_report
from janus_runtime.bundle.manifest import Precision
from janus_runtime.console.errors import report_errors
from testing.make_checkpoint import make_checkpoint
from testing.published_layouts import MODELS


@click.command()
@click.option("--model", type=click.Choice(list(MODELS)), default="janus-pro-7b", show_default=True)
@click.option("--format", "file_format", type=click.Choice(["bin", "safetensors"]), default="bin", show_default=True)
@click.option("--precision", "precisions", multiple=True, default=["fp16", "int4"], show_default=True)
@click.option("--draw", type=click.Choice(get_args(Precision)), help="Draw a picture with the bundle of this precision.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="Room for three copies of the checkpoint.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--debug", is_flag=True)
def main(model: str, file_format: str, precisions: tuple[str, ...], draw: Precision | None, work: Path, out: Path, debug: bool) -> None:
    """Export MODEL's shape and say what it took. WORK is left as it was."""
    if draw not in (None, *precisions):
        raise click.UsageError(f"--draw {draw} needs --precision {draw}")
    work.mkdir(parents=True, exist_ok=True)
    with report_errors(debug), tempfile.TemporaryDirectory(dir=work) as folder:
        checkpoint = make_checkpoint(model, Path(folder) / model, "original", file_format, "bf16")
        size = sum(path.stat().st_size for path in checkpoint.iterdir())
        copy = Path(folder) / "copy"
        start = time.perf_counter()
        shutil.copytree(checkpoint, copy)
        copy_s = time.perf_counter() - start
        shutil.rmtree(copy)
        click.echo(f"copy   {copy_s:7.1f} s  {size / 1e9:.1f} GB")
        results = {}
        for precision in precisions:
            bundle = Path(folder) / precision
            row = measure("janus-export", "checkpoint", str(checkpoint), "--out", str(bundle), "--precision", precision, "--quiet")
            row["bundle_gb"] = round(sum(path.stat().st_size for path in bundle.iterdir()) / 1e9, 2)
            results[precision] = row
            click.echo(f"{precision:6} {row['wall_s']:7.1f} s  {row['bundle_gb']:.1f} GB, peak memory {row['peak_gb']:.2f} GB")
            if precision == draw:
                row["draw"] = measure("janus-rt", "generate", "a red fox", "-n", "1", "--bundle", str(bundle), "--json", "--out", folder)
                step = row["draw"]["timings_ms"]["step"]
                click.echo(
                    f"       {row['draw']['wall_s']:7.1f} s to a picture, {step:.0f} ms a step, peak memory {row['draw']['peak_gb']:.2f} GB"
                )
            shutil.rmtree(bundle)
    report = {
        "question": "time and peak memory of an export, beside a plain copy of the checkpoint",
        "model": model,
        "format": file_format,
        "random_weights": True,
        **where(),
        "checkpoint_gb": round(size / 1e9, 2),
        "copy_s": round(copy_s, 1),
        "results": results,
    }
    write_report(out, report)


if __name__ == "__main__":
    main()
