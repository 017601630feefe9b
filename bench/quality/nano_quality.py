"""Is what a bundle of janus-nano or nano-flow draws and says right? Prompts and questions held out of training, scored by rule.

    python -m bench.quality.nano_quality engines/janus-nano --check
    python -m bench.quality.nano_quality BUNDLE --backend cuda --baseline engines/janus-nano --draws 2000

The gate of every precision and backend: with `--baseline` both bundles draw the same prompts from the same noise and
answer the same questions, and a score that falls by more than one point and two standard errors of the paired
difference fails. `--check` fails below what the project promises of either. Exit code 1 on failure.

A sample that told what to change in training flatters what came of it: another `--seed` draws one that told nothing.
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from PIL import Image

import janus_runtime
from bench.machine import where
from janus_runtime.console.commands import FiniteFloat
from janus_runtime.console.errors import report_errors
from janus_runtime.console.status import StatusLine
from janus_runtime.errors import JanusError
from nano.language import caption, describe, questions
from nano.look import look, related
from nano.scenes import OFF_CENTRE, PLACES, SIDE, Scene, Thing, render, sample

# What janus-nano and nano-flow promise, as fractions of 1.
LEAST = {
    "janus-pro": {"colour": 0.95, "shape": 0.95, "colour_and_shape": 0.95, "position": 0.85, "answers": 0.95},
    "janus-flow": {"colour": 0.9, "shape": 0.9, "colour_and_shape": 0.9},
}
ALLOWED_LOSS = 0.01
SEED = 20_000  # of scenes and noise; training never sees held-out scenes, whatever its seed
_BATCH = 8

# Score -> one outcome for each draw or question; None where it does not apply.
Outcomes = dict[str, list[bool | None]]


def drawing_outcomes(scene: Scene, prompt: str, picture: np.ndarray) -> dict[str, bool | None]:
    """What of the prompt is in the picture [SIDE, SIDE, 3]. Colours and shapes count only if all things' are right."""
    seen, words = look(picture), prompt.lower().replace("gray", "grey")
    wanted = Counter((thing.colour, thing.shape) for thing in scene.things)
    there = Counter((thing.colour, thing.shape) for thing in seen.things)
    sizes = Counter((t.colour, t.shape, t.size) for t in scene.things if f"{t.size} {t.colour} {t.shape}" in words)
    return {
        "colour": Counter(thing.colour for thing in scene.things) == Counter(thing.colour for thing in seen.things),
        "shape": Counter(thing.shape for thing in scene.things) == Counter(thing.shape for thing in seen.things),
        "colour_and_shape": wanted == there,
        "position": _in_relation(scene, seen.things) if scene.kind == "pair" else None,
        "place": _in_place(scene, seen.things) if scene.kind == "one" else None,
        "count": len(seen.things) == len(scene.things) if scene.kind == "many" else None,
        "size": sizes <= Counter((t.colour, t.shape, t.size) for t in seen.things) if sizes else None,
        "background": seen.background == scene.background
        if f"on {scene.background}" in words or f"a {scene.background} b" in words
        else None,
    }


def _in_relation(scene: Scene, seen: tuple[Thing, ...]) -> bool:
    found = [[other for other in seen if (other.colour, other.shape) == (thing.colour, thing.shape)] for thing in scene.things]
    return all(len(things) == 1 for things in found) and related(found[0][0], scene.detail, found[1][0])


def _in_place(scene: Scene, seen: tuple[Thing, ...]) -> bool:
    """Nearer to the place asked for than to any other."""
    if len(seen) != 1:
        return False
    offset = np.array([seen[0].x - SIDE / 2, seen[0].y - SIDE / 2])
    return min(PLACES, key=lambda place: float(np.linalg.norm(offset - OFF_CENTRE * np.array(PLACES[place])))) == scene.detail


def draw(
    janus: janus_runtime.Janus, draws: int, cfg_weight: float | None, tell: Callable[[str], None], seed: int = SEED, **settings: Any
) -> Outcomes:
    """The i-th prompt and its noise are the same for every bundle and all other `settings` of `generate`."""
    rng = np.random.default_rng(seed)
    scenes = [sample(rng, held_out=True) for _ in range(draws)]
    prompts = [caption(scene, rng, new=True) for scene in scenes]
    outcomes: Outcomes = {}
    for start in range(0, draws, _BATCH):
        chosen = prompts[start : start + _BATCH]
        pictures = janus.generate(chosen, seed=seed + start, cfg_weight=cfg_weight, batch_size=_BATCH, **settings)
        for index, picture in enumerate(pictures, start):
            for name, right in drawing_outcomes(scenes[index], prompts[index], np.asarray(picture.image)).items():
                outcomes.setdefault(name, []).append(right)
        tell(f"drawn {start + len(pictures)} of {draws}")
    return outcomes


def ask(janus: janus_runtime.Janus, count: int, tell: Callable[[str], None], seed: int = SEED) -> Outcomes:
    """One question about each of `count` scenes; the answer counts if it is the right one, letter for letter."""
    rng = np.random.default_rng(seed + 1)
    outcomes: Outcomes = {"answers": [], "descriptions": []}
    for index in range(count):
        scene = sample(rng, held_out=True)
        ((question, answer),) = questions(scene, rng, 1)
        said = "".join(janus.describe(Image.fromarray(render(scene)), question, max_tokens=48)).strip()
        outcomes["answers"].append(said == answer)
        outcomes["descriptions"].append(said == answer if answer == describe(scene) else None)
        if (index + 1) % 50 == 0:
            tell(f"asked {index + 1} of {count}")
    return outcomes


def scores(outcomes: Outcomes) -> dict[str, float]:
    """Share of right ones among those that apply."""
    return {name: float(np.mean([right for right in row if right is not None])) for name, row in outcomes.items() if set(row) - {None}}


def losses(outcomes: Outcomes, baseline: Outcomes) -> dict[str, dict[str, float | bool]]:
    """Score by score: how much was lost, the standard error of the paired difference, and whether that is too much."""
    report = {}
    for name, row in outcomes.items():
        lost = np.array([int(old) - int(new) for old, new in zip(baseline[name], row, strict=True) if new is not None and old is not None])
        if len(lost):
            error = float(lost.std() / len(lost) ** 0.5)
            loss = float(lost.mean())
            report[name] = {"loss": loss, "standard_error": error, "draws": len(lost), "failed": loss > ALLOWED_LOSS + 2 * error}
    return report


def examine(
    bundle: str, backend: Any, draws: int, count: int, weight: float | None, seed: int, tell: Callable[[str], None]
) -> tuple[Outcomes, dict]:
    with janus_runtime.load(bundle, backend=backend) as janus:
        if (size := janus.manifest.image_output.size) != SIDE:
            raise JanusError(f"{bundle} draws {size}x{size}, janus-nano and nano-flow {SIDE}x{SIDE}; give a bundle of these")
        outcomes = draw(janus, draws, weight, tell, seed) | ask(janus, count, tell, seed)
        manifest = janus.manifest
        about = {"bundle": manifest.name, "family": manifest.family, "precision": manifest.precision, "backend": janus.backend}
        return outcomes, {**about, "cfg_weight": manifest.defaults.cfg_weight if weight is None else weight}


@click.command()
@click.argument("bundle")
@click.option("--backend", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]))
@click.option("--draws", default=500, show_default=True, type=click.IntRange(1), help="Pictures of held-out prompts.")
@click.option("--questions", "count", default=1000, show_default=True, type=click.IntRange(1), help="Questions about held-out scenes.")
@click.option("--cfg-weight", type=FiniteFloat(), help="Strength of guidance; default: the model's.")
@click.option("--seed", default=SEED, show_default=True, type=click.IntRange(0), help="Of prompts, questions and noise.")
@click.option("--unguided", is_flag=True, help="Also draw with guidance 1, which is none.")
@click.option("--baseline", metavar="BUNDLE", help="Compare with this bundle, draw by draw.")
@click.option("--baseline-backend", default="cpu", show_default=True, type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]))
@click.option("--check", is_flag=True, help="Fail below what the project promises of it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--debug", is_flag=True)
def main(
    bundle: str, backend: str, draws: int, count: int, cfg_weight: float | None, seed: int, unguided: bool,
    baseline: str | None, baseline_backend: str, check: bool, as_json: bool, debug: bool,
) -> None:  # fmt: skip
    """Score BUNDLE, a janus-nano or nano-flow of any precision, by rule."""

    with report_errors(debug), StatusLine() as line:
        outcomes, about = examine(bundle, backend, draws, count, cfg_weight, seed, line.show)
        result = {**scores(outcomes), "draws": draws, "questions": count, "seed": seed, **about, **where()}
        if unguided:
            with janus_runtime.load(bundle, backend=backend) as janus:
                result["unguided"] = scores(draw(janus, draws, 1.0, line.show, seed))
        promised = LEAST[about["family"]] if check else {}
        failed = [_short(name, result.get(name), least) for name, least in promised.items() if not result.get(name, -1) >= least]
        if baseline:
            others, other = examine(baseline, baseline_backend, draws, count, cfg_weight, seed, line.show)
            result["baseline"] = {**scores(others), **other}
            result["losses"] = losses(outcomes, others)
            failed += [f"{name} lost {row['loss']:.3f}" for name, row in result["losses"].items() if row["failed"]]
        line.clear()
        if as_json:
            click.echo(json.dumps(result))
        else:
            click.echo(_table(result))
        if failed:
            raise click.ClickException("; ".join(failed))


def _short(name: str, score: float | None, least: float) -> str:
    return f"{name} was not asked for; raise --draws" if score is None else f"{name} is {score:.3f}, promised {least}"


def _table(result: dict) -> str:
    head = f"{result['bundle']}, {result['precision']}, {result['backend']}, guidance {result['cfg_weight']:g}"
    lines = [f"{head}: {result['draws']} prompts, {result['questions']} questions, none of them in training"]
    for name, value in result.items():
        if isinstance(value, float) and name != "cfg_weight":
            line = f"  {name:17} {value:6.1%}"
            if "unguided" in result and name in result["unguided"]:
                line += f"   {result['unguided'][name]:6.1%} unguided"
            if "losses" in result and name in result["losses"]:
                row = result["losses"][name]
                line += f"   {result['baseline'][name]:6.1%} of the baseline, lost {row['loss']:+.3f} ± {row['standard_error']:.3f}"
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
