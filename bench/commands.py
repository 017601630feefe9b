"""How long do the commands take, and how much memory? Runs each in a process of its own and writes JSON.

    python -m bench.commands CHECKPOINT --image PICTURE --out bench/results/commands.json

Wall time includes the interpreter's start. Peak memory is the process's largest resident set, mapped pages included.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from bench.machine import where, write_report

_BIN = Path(sys.executable).parent


def measure(*command: str) -> dict:
    """One process: its wall seconds, processor seconds, peak memory, and what it printed as JSON."""
    start = time.perf_counter()
    process = subprocess.Popen([str(_BIN / command[0]), *command[1:]], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} failed with {process.returncode}")
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "timings_ms": {key: round(value, 1) for key, value in (rows[-1].get("timings", {}) if rows else {}).items()},
    }


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False))
@click.option("--image", required=True, type=click.Path(exists=True), help="A picture to describe.")
@click.option("--precision", "precisions", multiple=True, default=["int4", "int8", "fp32", "fp16"], show_default=True)
@click.option("--prompt", default="a red fox in the snow", show_default=True)
@click.option("--max-tokens", default=32, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(checkpoint: str, image: str, precisions: tuple[str, ...], prompt: str, max_tokens: int, out: Path) -> None:
    """Export CHECKPOINT in each precision, verify it, draw one picture and describe one."""
    results = {}
    for precision in precisions:
        with tempfile.TemporaryDirectory(dir=Path(checkpoint).resolve().parent) as folder:
            bundle = str(Path(folder) / "bundle")
            results[precision] = {
                "export": measure("janus-export", "checkpoint", checkpoint, "--out", bundle, "--precision", precision),
                "verify": measure("janus-rt", "verify", "--bundle", bundle, "--json"),
                "generate": measure("janus-rt", "generate", prompt, "-n", "1", "--bundle", bundle, "--json", "--out", folder),
                "describe": measure("janus-rt", "describe", image, "--max-tokens", str(max_tokens), "--bundle", bundle, "--json"),
            }
    report = {
        "question": "time and peak memory of export, verify, generate (1 picture) and describe",
        "checkpoint": f"{Path(checkpoint).name}: {json.loads((Path(checkpoint) / 'config.json').read_text())['model_type']} layout",
        "random_weights": json.loads((Path(checkpoint) / "config.json").read_text()).get("random_weights", False),
        **where(),
        "max_tokens": max_tokens,
        "results": results,
    }
    write_report(out, report)
    for precision, stages in results.items():
        for stage, row in stages.items():
            click.echo(f"{precision} {stage:9} {row['wall_s']:7.1f} s  {row['peak_gb']:5.2f} GB  {row['timings_ms'] or ''}")


if __name__ == "__main__":
    main()
