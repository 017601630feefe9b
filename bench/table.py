"""Writes README's table of numbers from bench/results, between its markers. `--check` only compares.

python -m bench.table [--check]
"""

import json
from pathlib import Path

import click

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "bench" / "results" / "commands-janus-pro-1b.json"
_START, _END = "<!-- table: bench/table.py -->", "<!-- end of table -->"


def table(report: dict) -> str:
    """One row a precision: seconds and peak memory of each command, and of one image step."""
    machine = report["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, ONNX Runtime {report['versions']['onnxruntime']}, "
        "Janus-Pro-1B's shape with random weights (not run on real weights):",
        "",
        "| precision | export, torch | one 384×384 picture | of it, one of 576 steps | describe a photo, 32 tokens |",
        "| --- | --- | --- | --- | --- |",
    ]
    for precision, stages in report["results"].items():
        cells = [f"{stages[name]['wall_s']:.0f} s, {stages[name]['peak_gb']:.1f} GB" for name in ("export", "generate", "describe")]
        step = f"{stages['generate']['timings_ms']['step']:.0f} ms"
        lines.append(f"| {precision} | {cells[0]} | {cells[1]} | {step} | {cells[2]} |")
    return "\n".join(lines)


def replaced(readme: str, new: str) -> str:
    head, rest = readme.split(_START)
    return f"{head}{_START}\n{new}\n{_END}{rest.split(_END)[1]}"


@click.command()
@click.option("--check", is_flag=True, help="Exit with 1 if README and results differ.")
def main(check: bool) -> None:
    """Bring README's table up to date."""
    path = _ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = replaced(old, table(json.loads(_RESULTS.read_text())))
    if check and new != old:
        raise click.ClickException("README's table is not that of bench/results; run 'python -m bench.table'")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
