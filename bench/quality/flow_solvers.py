"""Do fewer steps of a flow draw what was asked for as often? nano-flow's held-out prompts, drawn by each solver from the same noise.

    python -m bench.quality.flow_solvers BUNDLE --drawing euler:30 --drawing ab2:15 --seed 81000 --seed 82000 --draws 768 --out FILE.json

Drawings are a solver and its number of steps; each is compared with the first, draw by draw. Seeds are chosen before: a sample that
told which drawing to take flatters it. With `--work` what was drawn is kept: stopped, it goes on where it was.
"""

import json
from pathlib import Path
from typing import Any

import click

import janus_runtime
from bench.machine import where, write_report
from bench.quality.nano_quality import Outcomes, draw, losses, scores
from janus_runtime.console.errors import report_errors
from janus_runtime.console.status import StatusLine
from janus_runtime.errors import JanusError
from nano.scenes import SIDE


class Drawing(click.ParamType):
    name = "solver:steps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        solver, _, steps = value.partition(":")
        if not steps.isdecimal():
            self.fail(f"{value!r} is not a solver and its steps, such as euler:30")
        return solver, int(steps)


def name_of(drawing: tuple[str, int]) -> str:
    return f"{drawing[0]} {drawing[1]}"


@click.command()
@click.argument("bundle")
@click.option("--drawing", "drawings", multiple=True, type=Drawing(), required=True, help="At least two; the first is the baseline.")
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0), required=True, help="Of a sample's prompts and noise.")
@click.option("--draws", default=768, show_default=True, type=click.IntRange(1), help="Pictures of each drawing and sample.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="Folder for what each sample gave, of this bundle.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--debug", is_flag=True)
def main(
    bundle: str, drawings: tuple[tuple[str, int], ...], seeds: tuple[int, ...], draws: int, work: Path | None, out: Path | None, debug: bool
) -> None:
    """Score drawings of BUNDLE, a nano-flow of any precision, by rule."""
    with report_errors(debug), StatusLine() as line, janus_runtime.load(bundle, "cpu") as janus:
        manifest = janus.manifest
        if manifest.flow is None or manifest.image_output.size != SIDE:
            raise JanusError(
                f"{bundle} is {manifest.name}, not nano-flow; export one with 'janus-export checkpoint nano/nano-flow --out DIR'"
            )
        found: dict[str, list[Outcomes]] = {name_of(each): [] for each in drawings}
        for seed in seeds:
            # In turn, so that whoever stops early has compared what there is.
            for solver, steps in drawings:
                show = lambda text, what=f"sample {seed}, {solver} {steps}": line.show(f"{what}: {text}")  # noqa: E731
                kept = None if work is None else work / f"{solver}-{steps}-{seed}-{draws}.json"
                if kept is not None and kept.exists():
                    outcomes = json.loads(kept.read_text())
                else:
                    outcomes = draw(janus, draws, None, show, seed, solver=solver, steps=steps)
                    if kept is not None:
                        write_report(kept, outcomes)
                found[name_of((solver, steps))].append(outcomes)
        line.clear()
        report = {
            "question": "Do fewer steps of a flow draw what was asked for as often?",
            "bundle": manifest.name,
            "precision": manifest.precision,
            "cfg_weight": manifest.defaults.cfg_weight,
            "shifts": {solver: manifest.flow.schedule(solver).shift for solver, _ in drawings},
            "baseline": name_of(drawings[0]),
            "seeds": list(seeds),
            "draws": draws * len(seeds),
            **where(),
            "samples": {seed: compare({name: parts[index] for name, parts in found.items()}) for index, seed in enumerate(seeds)},
            "all": compare({name: join(parts) for name, parts in found.items()}),
        }
        for name, row in report["all"].items():
            lost = row["losses"].get("colour_and_shape")
            told = f", lost {lost['loss']:+.4f} ± {lost['standard_error']:.4f}" if lost else ""
            click.echo(f"{name:10} {row['scores']['colour_and_shape']:6.1%} right in colour and shape{told}")
        if out:
            write_report(out, report)


def compare(found: dict[str, Outcomes]) -> dict[str, Any]:
    """Scores of each drawing, and what it loses of the first's."""
    baseline, *_ = found.values()
    return {
        name: {"scores": scores(outcomes), "losses": {} if outcomes is baseline else losses(outcomes, baseline)}
        for name, outcomes in found.items()
    }


def join(parts: list[Outcomes]) -> Outcomes:
    """Of several samples, those of all draws."""
    return {name: [outcome for part in parts for outcome in part[name]] for name in parts[0]}


if __name__ == "__main__":
    main()
