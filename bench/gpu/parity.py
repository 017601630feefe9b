"""Does a backend compute and draw what the CPU does in fp32? In steps that hand over files, since each may need another environment.

    python -m bench.gpu.parity verify BUNDLE --backend tensorrt --out verify.json
    python -m bench.gpu.parity record BUNDLE --backend cpu --out cpu.npz
    python -m bench.gpu.parity record BUNDLE --backend tensorrt --fed cpu.npz --out trt.npz
    python -m bench.gpu.parity compare cpu.npz trt.npz --out agreement.json
    python -m bench.gpu.parity quality BUNDLE --backend tensorrt --baseline cpu.json --out trt.json

`record` predicts every step of one picture, fed its own ids or those of another record (teacher forcing), and draws the picture as
users do. `compare` says how far logits differ, and where drawn ids part, by how much the two ids' scores do.
"""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.gpu.machine import BACKENDS, about, open_janus
from bench.machine import write_report
from bench.quality.agreement import compare as agreement
from bench.quality.agreement import predict
from bench.quality.nano_quality import ask, draw, losses, scores
from janus_runtime.bundle.interface import Weights
from janus_runtime.checks.tolerances import LOGIT_MARGIN, tolerance
from janus_runtime.console.errors import report_errors
from janus_runtime.errors import JanusError
from janus_runtime.janus import Janus
from janus_runtime.sampling.guidance import Pairs
from janus_runtime.sampling.noise import Noise
from janus_runtime.sampling.sampler import Ids

_PROMPT = "a red circle left of the blue square"

Record = dict[str, NDArray[Any]]
# Of the decoder, by a bundle's precision.
_WEIGHTS: dict[str, Weights] = {"fp32": "float32", "fp16": "float16", "int8": "int8", "int4": "int4"}


def record(janus: Janus, prompt: str, seed: int, fed: Ids | None) -> Record:
    """`ids` and `logits` of `predict`, and the ids `drawn` [N] by `generate`, with what they were drawn from."""
    weight = janus.manifest.defaults.cfg_weight
    ids, logits = predict(janus, prompt, seed, weight, fed)
    (picture,) = janus.generate(prompt, 1, seed=seed)
    head = {"prompt": prompt, "seed": seed, "cfg_weight": weight, **about(janus)}
    return {"ids": ids, "logits": logits, "drawn": picture.image_ids, "about": np.array(json.dumps(head))}


def settings(record: Record) -> tuple[str, int]:
    """Prompt and seed of a record."""
    found = json.loads(str(record["about"]))
    return found["prompt"], found["seed"]


def compare(theirs: Record, ours: Record) -> dict[str, Any]:
    """`theirs` is the baseline. Raises JanusError where the two were not fed the same."""
    baseline, other = (json.loads(str(each["about"])) for each in (theirs, ours))
    for key in ("model", "prompt", "seed", "cfg_weight"):
        if baseline[key] != other[key]:
            raise JanusError(f"the records are of {key} {baseline[key]!r} and {other[key]!r}, expected the same")
    if not (theirs["ids"] == ours["ids"]).all():
        raise JanusError("the records were fed different ids; make the second with --fed and the first")
    weight, logits = baseline["cfg_weight"], (ours["logits"], theirs["logits"])
    differences = np.abs(logits[0] - logits[1]).max((1, 2)) / np.abs(logits[1]).max()
    allowed = tolerance("language_model", _WEIGHTS[other["precision"]])
    parted = parting(theirs, ours["drawn"], baseline["seed"], weight)
    exact = other["precision"] == baseline["precision"] == "fp32"
    return {
        "question": "logits of every step, teacher-forced, and drawn ids, beside the CPU's",
        "baseline": baseline,
        "other": other,
        "steps": len(differences),
        "difference": float(differences.max()),
        "difference_last_tenth": float(differences[-max(1, len(differences) // 10) :].max()),
        "tolerance": allowed,
        "prompt_row": agreement(ours["logits"][:, 0], theirs["logits"][:, 0]),
        "guided": agreement(*(Pairs(weight).mix(each.reshape(-1, each.shape[-1])) for each in logits)),
        "drawn": parted or "the same ids",
        "passed": bool(differences.max() <= allowed) and (not exact or parted is None or parted["margin"] <= LOGIT_MARGIN),
    }


def parting(theirs: Record, drawn: Ids, seed: int, cfg_weight: float) -> dict[str, Any] | None:
    """Where `drawn` leaves the baseline's own picture: the step, both ids and how far apart the baseline scores them.

    None where it does not. The baseline's logits hold up to there, since it was fed what it drew.
    """
    places = np.flatnonzero(theirs["ids"] != drawn)
    if not len(places):
        return None
    step = int(places[0])
    noise = Noise([seed], theirs["logits"].shape[-1])(step)[0]
    guided = Pairs(cfg_weight).mix(theirs["logits"][step])[0] + noise
    expected, got = int(theirs["ids"][step]), int(drawn[step])
    return {"step": step, "expected": expected, "got": got, "margin": float(guided[expected] - guided[got])}


def read(path: Path) -> Record:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@click.group()
def main() -> None:
    """Compare a backend with the CPU."""


_bundle = click.argument("bundle")
_backend = click.option("--backend", type=click.Choice(BACKENDS), required=True)
_out = click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
_debug = click.option("--debug", is_flag=True)


@main.command()
@_bundle
@_backend
@_out
@_debug
def verify(bundle: str, backend: str, out: Path, debug: bool) -> None:
    """Every graph of BUNDLE against its golden, as `janus-rt verify` does."""
    with report_errors(debug), open_janus(bundle, backend) as janus:
        rows = {}
        for check in janus.verify_goldens():
            rows[check.graph] = {"difference": check.difference, "tolerance": check.tolerance, "passed": check.passed}
            click.echo(f"{'ok' if check.passed else 'FAILED':8}{check.graph}: {check.difference:.1e}, {check.tolerance:.0e} allowed")
        write_report(out, {"question": "graphs beside the torch reference", **about(janus), "results": rows})
        if failed := [name for name, row in rows.items() if not row["passed"]]:
            raise JanusError(f"{', '.join(failed)} of {bundle} on {backend}: not what torch computes; see {out}")


@main.command("record")
@_bundle
@_backend
@click.option("--fed", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Another record, whose ids are fed.")
@click.option("--prompt", default=_PROMPT, show_default=True)
@click.option("--seed", default=0, show_default=True)
@_out
@_debug
def _record(bundle: str, backend: str, fed: Path | None, prompt: str, seed: int, out: Path, debug: bool) -> None:
    """Predict and draw one picture."""
    with report_errors(debug), open_janus(bundle, backend) as janus:
        out.parent.mkdir(parents=True, exist_ok=True)
        np.savez(out, **record(janus, prompt, seed, read(fed)["ids"] if fed else None))  # type: ignore[arg-type]


@main.command("compare")
@click.argument("baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("other", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_out
@_debug
def _compare(baseline: Path, other: Path, out: Path, debug: bool) -> None:
    """How far OTHER is from BASELINE."""
    with report_errors(debug):
        report = compare(read(baseline), read(other))
        write_report(out, report)
        text = f"{report['steps']} steps: logits differ by {report['difference']:.1e}, {report['tolerance']:.0e} allowed; "
        click.echo(f"{text}{report['guided']['top1']:.1%} the same likeliest id; drawn: {report['drawn']}")
        if not report["passed"]:
            raise JanusError(f"{other} is further from {baseline} than its precision explains; see {out}")


@main.command()
@_bundle
@_backend
@click.option("--draws", default=500, show_default=True, type=click.IntRange(1))
@click.option("--questions", "count", default=500, show_default=True, type=click.IntRange(1))
@click.option("--baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="What this command wrote for another one.")
@_out
@_debug
def quality(bundle: str, backend: str, draws: int, count: int, baseline: Path | None, out: Path, debug: bool) -> None:
    """What BUNDLE, a janus-nano, gets right: `bench.quality.nano_quality`, with a baseline from another process."""
    with report_errors(debug):
        with open_janus(bundle, backend) as janus:
            outcomes = draw(janus, draws, None, lambda text: None) | ask(janus, count, lambda text: None)
            report: dict[str, Any] = {**about(janus), "draws": draws, "questions": count, "scores": scores(outcomes)}
        failed = []
        if baseline:
            other = json.loads(baseline.read_text())
            if (other["draws"], other["questions"]) != (draws, count):
                raise JanusError(
                    f"{baseline} is of {other['draws']} draws and {other['questions']} questions, expected {draws} and {count}"
                )
            report["losses"] = losses(outcomes, other["outcomes"])
            failed = [f"{name} lost {row['loss']:.3f}" for name, row in report["losses"].items() if row["failed"]]
        write_report(out, {**report, "outcomes": outcomes})
        click.echo(", ".join(f"{name} {value:.1%}" for name, value in report["scores"].items()))
        if failed:
            raise JanusError(f"{bundle} on {backend}: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
