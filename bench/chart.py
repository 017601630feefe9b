"""Draws docs/latency.svg from bench/results/latency.json: an image step of each system, and how much of it is its floor.

    python -m bench.chart

The floor is what the step must read over the memory bandwidth of the same run.
"""

import json
from pathlib import Path

import click
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt  # noqa: E402

_ROOT = Path(__file__).resolve().parents[1]


@click.command()
@click.option("--report", type=click.Path(exists=True, path_type=Path), default=_ROOT / "bench" / "results" / "latency.json")
@click.option("--out", type=click.Path(path_type=Path), default=_ROOT / "docs" / "latency.svg")
def main(report: Path, out: Path) -> None:
    """Draw the chart of a report that bench.cpu.latency wrote."""
    measured = json.loads(report.read_text())
    bars = []
    for system, stages in measured["results"].items():
        if system.startswith("earlier"):
            continue
        middle = stages["image step, middle"]
        bars.append((middle["p50"], middle["reads"] / measured["bandwidth_gb_per_s"] / 1e6, system))
    bars.sort(reverse=True)
    # The same file for the same numbers: no date, and ids that do not change.
    plt.rcParams |= {"svg.hashsalt": "janus-rt", "font.size": 10}
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(bars) + 1.2), layout="constrained")
    names = [system for _, _, system in bars]
    axes.barh(names, [step for step, _, _ in bars], color="#b9c4d0", label="measured")
    axes.barh(names, [floor for _, floor, _ in bars], height=0.4, color="#2b5a8a", label="floor: bytes read / bandwidth")
    for place, (step, _, _) in enumerate(bars):
        axes.text(step, place, f" {step:.0f} ms", va="center")
    axes.set_xlabel(f"one image step half-way through a picture, {measured['rows']} rows, {measured['model']}")
    axes.legend(loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, metadata={"Date": None})
    click.echo(out)


if __name__ == "__main__":
    main()
