"""How good is what `image_preview` shows, and how soon? Beside `image_decoder`, on what the bundle draws, in turn.

    python -m bench.quality.preview_quality engines/janus-nano --out bench/results/preview-nano.json

Held-out prompts of janus-nano's scenes are drawn, and both decoders get the same ids. dB and grey levels are those of the manifest's
`judged`; a bundle that draws scenes of janus-nano's size is also scored by rule, as `nano_quality` does.
"""

import json
import time
from pathlib import Path

import click
import numpy as np

import janus_runtime
from bench.machine import where
from bench.quality.nano_quality import SEED, Outcomes, drawing_outcomes, losses, scores
from janus_runtime.console.errors import report_errors
from janus_runtime.console.status import StatusLine
from janus_runtime.errors import JanusError
from janus_runtime.pictures.difference import levels, psnr_db
from janus_runtime.pictures.image import postprocess
from nano.language import caption
from nano.scenes import SIDE, sample

_GRAPHS = ("image_decoder", "image_preview")
_BATCH = 8


@click.command()
@click.argument("bundle")
@click.option("--draws", default=500, show_default=True, type=click.IntRange(1), help="Pictures of held-out prompts.")
@click.option("--seed", default=SEED, show_default=True, type=click.IntRange(0), help="Of prompts and noise.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report here.")
@click.option("--debug", is_flag=True)
def main(bundle: str, draws: int, seed: int, out: Path | None, debug: bool) -> None:
    """Compare both decoders of BUNDLE."""
    with report_errors(debug), StatusLine() as line, janus_runtime.load(bundle, backend="cpu") as janus:
        graphs = janus.manifest.graphs
        if "image_preview" not in graphs:
            raise JanusError(f"{bundle} has no image_preview; export it again, and read what janus-export says of its preview")
        scored = janus.manifest.image_output.size == SIDE
        rng = np.random.default_rng(seed)
        scenes = [sample(rng, held_out=True) for _ in range(draws)]
        prompts = [caption(scene, rng, new=True) for scene in scenes]
        outcomes: dict[str, Outcomes] = {graph: {} for graph in _GRAPHS}
        seconds: dict[str, list[float]] = {graph: [] for graph in _GRAPHS}
        figures: list[tuple[float, float]] = []
        for start in range(0, draws, _BATCH):
            pictures = janus.generate(prompts[start : start + _BATCH], seed=seed + start, batch_size=_BATCH)
            for index, picture in enumerate(pictures, start):
                assert picture.image_ids is not None
                pixels = {}
                for graph in _GRAPHS:
                    begun = time.perf_counter()
                    pixels[graph] = janus._engines[graph].run({"image_ids": picture.image_ids[None]})["pixels"][0]
                    seconds[graph].append(time.perf_counter() - begun)
                    if scored:
                        shown = np.asarray(postprocess(pixels[graph]))
                        for name, right in drawing_outcomes(scenes[index], prompts[index], shown).items():
                            outcomes[graph].setdefault(name, []).append(right)
                exact, preview = (pixels[graph] for graph in _GRAPHS)
                figures.append((psnr_db(preview, exact), levels(preview, exact)))
            line.show(f"drawn {start + len(pictures)} of {draws}")
        line.clear()
        milliseconds = {graph: float(np.median(spent[1:] or spent)) * 1e3 for graph, spent in seconds.items()}
        report = {
            "bundle": janus.manifest.name,
            "draws": draws,
            "seed": seed,
            "judged": graphs["image_preview"].judged,
            "psnr_db": {"mean": float(np.mean([db for db, _ in figures])), "worst": min(db for db, _ in figures)},
            "levels": {"mean": float(np.mean([each for _, each in figures])), "worst": max(each for _, each in figures)},
            "ms": milliseconds,
            "time_of_the_decode": milliseconds["image_preview"] / milliseconds["image_decoder"],
            **({"scores": {graph: scores(each) for graph, each in outcomes.items()}} if scored else {}),
            **({"losses": losses(outcomes["image_preview"], outcomes["image_decoder"])} if scored else {}),
            **where(),
        }
        text = json.dumps(report, indent=1)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text + "\n", encoding="utf-8")
        click.echo(text)


if __name__ == "__main__":
    main()
