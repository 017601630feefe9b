"""Writes the tables of numbers in README.md and docs/benchmarks.md from bench/results, between their markers.

    python -m bench.table [--check]

`--check` only compares.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import click

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "bench" / "results"


def glance(report: dict) -> str:
    """One row a system: time and peak memory of one picture and of one answer, ours in int4, beside transformers where it was measured."""
    tokens = report["max_tokens"]
    systems = {"janus-rt int4 (default)": report["results"]["int4"]}
    systems |= {name: stages for name, stages in report["results"].items() if name.startswith("transformers")}
    if short := [name for name, stages in systems.items() if stages["describe"].get("tokens", tokens) != tokens]:
        raise click.ClickException(f"the answer of {', '.join(short)} ended before {tokens} tokens; measure with another picture")
    lines = [
        f"| {_machine(report)} | one 384×384 picture | an answer about a photo, {tokens} tokens |",
        "| --- | --- | --- |",
    ]
    for name, stages in systems.items():
        lines.append(f"| {name} | {_cost(stages['generate'])} | {_cost(stages['describe'])} |")
    return "\n".join(lines)


def speed(report: dict) -> str:
    """One row a precision: seconds and peak memory of each command, and of one image step."""
    lines = [
        f"{_machine(report)}, ONNX Runtime {report['versions']['onnxruntime']}:",
        "",
        "| precision | export (PyTorch) | one 384×384 picture | of which one of 576 steps | "
        f"an answer about a photo, {report['max_tokens']} tokens |",
        "| --- | --- | --- | --- | --- |",
    ]
    for precision, stages in report["results"].items():
        if "export" in stages:
            export, picture, answer = (_cost(stages[name]) for name in ("export", "generate", "describe"))
            bundle = f", bundle {stages['export']['bundle_gb']:.1f} GB" if "bundle_gb" in stages["export"] else ""
            step = f"{stages['generate']['timings_ms']['step']:.0f} ms"
            lines.append(f"| {precision} | {export}{bundle} | {picture} | {step} | {answer} |")
    return "\n".join(lines)


def _machine(report: dict) -> str:
    """Machines of one name may have other instructions; the last known one says most."""
    machine = report["machine"]
    instructions = f" with {machine['instructions'][-1].upper().replace('_', ' ')}" if machine.get("instructions") else ""
    return f"{machine['cpu']}{instructions}, {machine['cores']} cores"


def _cost(row: dict) -> str:
    return f"{row['wall_s']:.0f} s, {row['peak_gb']:.1f} GB"


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
    """One row a stage, one column a system, the best of each row in bold; of a step also the share of its floor."""
    systems = {name: row for name, row in report["results"].items() if not name.startswith("earlier")}
    lines = [
        f"{_machine(report)}; {report['rows']} rows, systems in turn, medians, the best in bold. In brackets the share of its floor: the "
        f"bytes that a step must read, over the read bandwidth of the same run, {report['bandwidth_gb_per_s']:.0f} GB/s.",
        "",
        "| stage | " + " | ".join(systems) + " |",
        "| --- |" + " --- |" * len(systems),
    ]
    for stage in next(iter(systems.values())):
        timings = [row.get(stage) for row in systems.values()]
        known = [timing["p50"] for timing in timings if timing]
        best = min(known) if len(known) > 1 else None
        lines.append(f"| {stage} | " + " | ".join(_cell(timing, best, report["bandwidth_gb_per_s"]) for timing in timings) + " |")
    return "\n".join(lines)


def _cell(timing: dict | None, best: float | None, bandwidth: float) -> str:
    """`best`: the least of the row, None where there is nothing to compare."""
    if timing is None:
        return ""
    share = f" ({timing['reads'] / bandwidth / 1e6 / timing['p50']:.0%})" if timing["reads"] else ""
    time = f"{timing['p50']:.0f} ms" if timing["p50"] < 1000 else f"{timing['p50'] / 1e3:.1f} s"
    return (f"**{time}**" if timing["p50"] == best else time) + share


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


def solvers(report: dict) -> str:
    """One row a drawing: its score, and what it loses of the first's draw by draw, in points."""
    lines = [
        f"| {report['draws']} prompts at guidance {report['cfg_weight']:g} | steps | each thing in its colour | lost, draw by draw |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in report["all"].items():
        solver, steps = name.split()
        lost = row["losses"].get("colour_and_shape")
        shift = report["shifts"][solver]
        told = f"{solver}, shift {shift:g}" if shift != 1 else solver
        change = f"{100 * lost['loss']:+.1f} ± {100 * lost['standard_error']:.1f} points" if lost else ""
        lines.append(f"| {told} | {steps} | {row['scores']['colour_and_shape']:.1%} | {change} |")
    return "\n".join(lines)


# Marker -> what makes the table, from which reports.
TABLES: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "glance": (glance, ("commands-beside-transformers.json",)),
    "speed": (speed, ("commands-janus-pro-1b.json",)),
    "latency": (latency, ("latency.json",)),
    "latency-8-rows": (latency, ("latency-8-rows.json",)),
    "latency-16-rows": (latency, ("latency-16-rows.json",)),
    "flow": (flow, ("flow.json",)),
    "quality": (quality, ("nano-quality.json",)),
    "precisions": (precisions, ("nano-fp16.json", "nano-int8.json", "nano-int4.json")),
    "nano-flow": (precisions, ("nano-flow-int8.json", "nano-flow-int4.json")),
    "solvers": (solvers, ("flow-solvers.json",)),
}
# There is no such table until something was measured.
if _GPU := sorted(path.name for path in _RESULTS.glob("gpu-*.json")):
    TABLES["gpu"] = (gpu, tuple(_GPU))

DOCUMENTS = (_ROOT / "README.md", _ROOT / "docs" / "benchmarks.md")
_TABLE = re.compile(r"<!-- table: (\S+) -->\n.*?<!-- end of table -->", re.S)


def replaced(text: str) -> str:
    """A document with each of its tables made anew. Raises click.ClickException for a table that nothing makes."""

    def made(place: re.Match[str]) -> str:
        name = place[1]
        if name not in TABLES:
            raise click.ClickException(f"no results for a table named {name}; there are {', '.join(TABLES)}")
        table, files = TABLES[name]
        body = table(*(json.loads((_RESULTS / file).read_text()) for file in files))
        return f"<!-- table: {name} -->\n{body}\n<!-- end of table -->"

    return _TABLE.sub(made, text)


def names(text: str) -> list[str]:
    """The tables of a document, in its order."""
    return [place[1] for place in _TABLE.finditer(text)]


@click.command()
@click.option("--check", is_flag=True, help="Exit with 1 if a document and the results differ.")
def main(check: bool) -> None:
    """Bring every document's tables up to date."""
    texts = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    if missing := TABLES.keys() - {name for text in texts.values() for name in names(text)}:
        raise click.ClickException(
            f"no document has the marks of {', '.join(sorted(missing))}; add '<!-- table: NAME -->' and the end mark"
        )
    for path, old in texts.items():
        new = replaced(old)
        if check and new != old:
            raise click.ClickException(f"the tables of {path.name} are not those of bench/results; run 'python -m bench.table'")
        if new != old:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
