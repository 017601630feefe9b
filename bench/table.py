"""Writes README's tables of numbers from bench/results, between their markers. `--check` only compares.

python -m bench.table [--check]
"""

import json
from collections.abc import Callable
from pathlib import Path

import click

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "bench" / "results"
_END = "<!-- end of table -->"


def speed(report: dict) -> str:
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


_SCORES = {
    "colour": "right colours",
    "shape": "right shapes",
    "colour_and_shape": "each thing in its colour",
    "position": "left, right, above, below",
    "count": "right number",
    "answers": "right answers",
}


def quality(report: dict) -> str:
    """What janus-nano gets right of prompts and questions that are held out of its training, with guidance and without."""
    guided, plain = f"guidance {report['cfg_weight']:g}", "no guidance"
    lines = [f"| {report['draws']} prompts, {report['questions']} questions | {guided} | {plain} |", "| --- | --- | --- |"]
    for name, label in _SCORES.items():
        without = f"{report['unguided'][name]:.1%}" if name in report["unguided"] else ""
        lines.append(f"| {label} | {report[name]:.1%} | {without} |")
    return "\n".join(lines)


def precisions(*reports: dict) -> str:
    """What a trained model keeps in other precisions than fp32: the same prompts, questions and noise."""
    first = reports[0]
    if len({json.dumps([report[key] for key in ("draws", "questions", "cfg_weight", "baseline")]) for report in reports}) > 1:
        raise click.ClickException("the reports of a model's precisions differ in draws, questions, guidance or baseline; make them anew")
    columns = {first["baseline"]["precision"]: first["baseline"], **{report["precision"]: report for report in reports}}
    lines = [
        f"| {first['draws']} prompts at guidance {first['cfg_weight']:g}, {first['questions']} questions | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name, label in _SCORES.items():
        lines.append(f"| {label} | " + " | ".join(f"{scores[name]:.1%}" for scores in columns.values()) + " |")
    return "\n".join(lines)


def latency(report: dict) -> str:
    """One row a stage, one column a system; of an image step also the share of its floor."""
    systems = report["results"]
    lines = [
        f"{report['rows']} rows, systems in turn, medians. In brackets the share of its floor: the bytes that a step must read, over the "
        f"read bandwidth of the same run, {report['bandwidth_gb_per_s']:.0f} GB/s.",
        "",
        "| stage | " + " | ".join(systems) + " |",
        "| --- |" + " --- |" * len(systems),
    ]
    for stage in next(iter(systems.values())):
        lines.append(f"| {stage} | " + " | ".join(_cell(row.get(stage), report["bandwidth_gb_per_s"]) for row in systems.values()) + " |")
    return "\n".join(lines)


def _cell(timing: dict | None, bandwidth: float) -> str:
    if timing is None:
        return ""
    share = f" ({timing['reads'] / bandwidth / 1e6 / timing['p50']:.0%})" if timing["reads"] else ""
    return (f"{timing['p50']:.0f} ms" if timing["p50"] < 1000 else f"{timing['p50'] / 1e3:.1f} s") + share


def flow(report: dict) -> str:
    """One row a system: a step of JanusFlow, the share of the machine's arithmetic, and how far its velocity is off."""
    rates, work = report["gflop_per_s"], report["decoder_gflop_per_step"]
    systems, loop = report["median_s"], next(iter(report["median_s"]))
    lines = [
        f"One picture, two rows, systems in turn, medians of {len(report['step_s'][loop]) - 1} steps. "
        f"Products alone run at {rates['fp32']:.0f} GFLOP/s in fp32 and {rates['int8']:.0f} in int8; "
        f"a step's decoder is {work / 1e3:.1f} TFLOP.",
        "",
        "| system | a step | times as fast | share of the arithmetic | velocity off by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, seconds in systems.items():
        rate = rates["int8" if "int" in name else "fp32"]
        error = f"{report['largest_velocity_error'][name]:.1e}" if name in report["largest_velocity_error"] else ""
        lines.append(f"| {name} | {seconds:.1f} s | {systems[loop] / seconds:.2f} | {work / seconds / rate:.0%} | {error} |")
    return "\n".join(lines)


def gpu(*reports: dict) -> str:
    """One row a model, row count and system: a step by its place in the picture, with the share of its floor, and pictures.

    Floors of torch's rows are those of our fp16 weights, over the bandwidth of our run.
    """
    cells: dict[tuple[str, int], list[dict]] = {}
    for report in reports:
        cells.setdefault((report["model"], report["rows"]), []).append(report)
    devices = {report["device"]["name"] for report in reports}
    if len(devices) > 1:
        raise click.ClickException(f"the GPU's reports are of {', '.join(sorted(devices))}; keep those of one in bench/results")
    bandwidths = [report["copy_gb_per_s"] for report in reports if "copy_gb_per_s" in report]
    versions: dict[str, str] = {}
    for report in reports:
        versions |= report["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("tensorrt", "onnxruntime-gpu", "torch", "transformers") if name in versions)
    lines = [
        f"{devices.pop()}, which copied {max(bandwidths):.0f} GB/s; {named}. Random weights. In brackets the share of a step's floor.",
        "",
        "| model, rows | system | step at the beginning | in the middle | at the end | first picture | pictures a second |",
        "| --- |" + " --- |" * 6,
    ]
    for (model, rows), found in sorted(cells.items()):
        ours = [report for report in found if "steps" in report]
        floors = {name: step["reads"] / max(bandwidths) / 1e6 for report in ours[:1] for name, step in report["steps"].items()}
        for report in ours:
            steps = [_share(report["steps"][name]["ms"], floors[name]) for name in ("early", "middle", "late")]
            picture = report["picture"]
            end = f"{picture['first_ms']:.0f} ms | {picture['images_per_s']:.2f} |"
            lines.append(f"| {model}, {rows} | {report['system']} {report['precision']} | {' | '.join(steps)} | {end}")
        for report in found:
            for way, row in report.get("results", {}).items():
                name = f"| {model}, {rows} | transformers {report['precision']}, {way} |"
                if "error" in row:
                    lines.append(f"{name} did not run | | | | |")
                    continue
                steps = [_share(row[f"step {place}"], floors.get(place)) for place in ("early", "middle", "late")]
                # All pictures of a batch are drawn together and decoded one after the other.
                every = row["picture"] + (rows // 2 - 1) * row["decode"]
                lines.append(f"{name} {' | '.join(steps)} | {row['picture']:.0f} ms | {rows // 2 / every * 1e3:.2f} |")
    return "\n".join(lines)


def _share(ms: float, floor: float | None) -> str:
    return f"{ms:.2f} ms" + (f" ({floor / ms:.0%})" if floor else "")


# Marker -> what makes the table, from which reports.
TABLES: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "latency": (latency, ("latency.json",)),
    "quality": (quality, ("nano-quality.json",)),
    "precisions": (precisions, ("nano-fp16.json", "nano-int8.json", "nano-int4.json")),
    "nano-flow": (precisions, ("nano-flow-int8.json", "nano-flow-int4.json")),
    "speed": (speed, ("commands-janus-pro-1b.json",)),
    "flow": (flow, ("flow.json",)),
}
# README has no such table until something was measured.
if _GPU := sorted(path.name for path in _RESULTS.glob("gpu-*.json")):
    TABLES["gpu"] = (gpu, tuple(_GPU))


def replaced(readme: str) -> str:
    """README with every table made anew."""
    for name, (table, files) in TABLES.items():
        head, rest = readme.split(f"<!-- table: {name} -->")
        body = table(*(json.loads((_RESULTS / file).read_text()) for file in files))
        readme = f"{head}<!-- table: {name} -->\n{body}\n{_END}{rest.split(_END, 1)[1]}"
    return readme


@click.command()
@click.option("--check", is_flag=True, help="Exit with 1 if README and results differ.")
def main(check: bool) -> None:
    """Bring README's tables up to date."""
    path = _ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = replaced(old)
    if check and new != old:
        raise click.ClickException("README's tables are not those of bench/results; run 'python -m bench.table'")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
