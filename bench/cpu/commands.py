"""How long do the commands take, and how much memory, beside those of transformers? Each runs in a process of its own.

    python -m bench.cpu.commands CHECKPOINT --image PICTURE --rival bf16 --rival fp32 --out bench/results/commands-janus-pro-1b.json

Wall time includes the interpreter's start and the loading of weights. Peak memory is the process's largest resident set, mapped
pages included. CHECKPOINT is a folder, in the HF layout where there are rivals; the bundles are made beside it and removed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click

from bench.machine import where, write_report

_BIN = Path(sys.executable).parent
_ROOT = Path(__file__).resolve().parents[2]


def measure(*command: str, cwd: Path | None = None) -> dict:
    """One process: its wall seconds, processor seconds, peak memory, and the timings and count of tokens that it printed as JSON."""
    start = time.perf_counter()
    process = subprocess.Popen([str(_BIN / command[0]), *command[1:]], stdout=subprocess.PIPE, text=True, cwd=cwd)
    assert process.stdout is not None
    with process.stdout as output:
        printed = output.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} failed with {process.returncode}")
    last = ([json.loads(line) for line in printed.splitlines() if line.startswith("{")] or [{}])[-1]
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "timings_ms": {key: round(value, 1) for key, value in last.get("timings", {}).items()},
        **({"tokens": last["tokens"]} if "tokens" in last else {}),
    }


def measure_in_turn(
    systems: dict[str, dict[str, list[str]]], rounds: int, folders: Mapping[str, Path] | None = None
) -> dict[str, dict[str, dict]]:
    """Every system's commands, once a round, so that a slow spell of the machine meets all. -> system, stage -> its median run.

    All systems have the same stages. `folders`: where a system's commands run, by default here.
    """
    runs: dict[str, dict[str, list[dict]]] = {system: {stage: [] for stage in commands} for system, commands in systems.items()}
    for _ in range(rounds):
        for stage in next(iter(systems.values())):
            for system, commands in systems.items():
                runs[system][stage].append(measure(*commands[stage], cwd=(folders or {}).get(system)))
    return {system: {stage: median_run(found) for stage, found in stages.items()} for system, stages in runs.items()}


def median_run(runs: list[dict]) -> dict:
    """The run of median wall time (the shorter of two), with the largest peak of all and every wall time."""
    middle = sorted(runs, key=lambda run: run["wall_s"])[(len(runs) - 1) // 2]
    return {**middle, "peak_gb": max(run["peak_gb"] for run in runs), "runs_wall_s": [run["wall_s"] for run in runs]}


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--image", required=True, type=click.Path(exists=True), help="A picture to describe.")
@click.option("--precision", "precisions", multiple=True, default=["int4", "int8", "fp32", "fp16"], show_default=True)
@click.option("--rival", "rivals", multiple=True, type=click.Choice(["bf16", "fp32"]), help="transformers in this dtype.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each command; the median is kept.")
@click.option("--prompt", default="a red fox in the snow", show_default=True)
@click.option("--ask", default="Describe this image.", show_default=True)
@click.option("--max-tokens", default=32, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(
    checkpoint: Path, image: str, precisions: tuple[str, ...], rivals: tuple[str, ...], rounds: int, prompt: str, ask: str,
    max_tokens: int, out: Path,
) -> None:  # fmt: skip
    """Export CHECKPOINT in each precision and verify it; then draw one picture and describe one, systems in turn."""
    config = json.loads((checkpoint / "config.json").read_text())
    if rivals and config["model_type"] != "janus":
        raise click.UsageError(f"{checkpoint} is in the {config['model_type']} layout; rivals need the HF layout, janus")
    question = ["--ask", ask, "--max-tokens", str(max_tokens)]
    with tempfile.TemporaryDirectory(dir=checkpoint.resolve().parent) as folder:
        made, systems = {}, {}
        for precision in precisions:
            bundle = Path(folder) / precision
            export = measure("janus-export", "checkpoint", str(checkpoint), "--out", str(bundle), "--precision", precision)
            export["bundle_gb"] = round(sum(path.stat().st_size for path in bundle.iterdir()) / 1e9, 2)
            made[precision] = {"export": export, "verify": measure("janus-rt", "verify", "--bundle", str(bundle), "--json")}
            ours = ["--bundle", str(bundle), "--json"]
            systems[precision] = {
                "generate": ["janus-rt", "generate", prompt, "-n", "1", *ours, "--out", folder],
                "describe": ["janus-rt", "describe", image, *question, *ours],
            }
        for dtype in rivals:
            script = ["python", str(Path(__file__).with_name("transformers_command.py"))]
            theirs = ["--dtype", dtype]
            systems[f"transformers {dtype}"] = {
                "generate": [*script, "generate", str(checkpoint), prompt, *theirs, "--out", str(Path(folder) / "rival.png")],
                "describe": [*script, "describe", str(checkpoint), image, *question, *theirs],
            }
        measured = measure_in_turn(systems, rounds)
    results = {system: {**made.get(system, {}), **stages} for system, stages in measured.items()}
    report = {
        "question": "time and peak memory of export, verify, generate (1 picture) and describe, beside transformers",
        "checkpoint": f"{checkpoint.name}: {config['model_type']} layout",
        "random_weights": config.get("random_weights", False),
        **where(),
        "max_tokens": max_tokens,
        "rounds": rounds,
        "results": results,
    }
    write_report(out, report)
    for system, stages in results.items():
        for stage, row in stages.items():
            click.echo(f"{system:18} {stage:9} {row['wall_s']:7.1f} s  {row['peak_gb']:5.2f} GB  {row['timings_ms'] or ''}")


if __name__ == "__main__":
    main()
