"""janus-rt generate."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console.commands import Command, FiniteFloat, option
from ..console.output import note, say
from ..console.status import StatusLine, progress_bar
from .options import exif_option, open_model, out_option, sampling_options

if TYPE_CHECKING:
    from ..drawing.request import GeneratedImage
    from ..janus import Janus


@click.command(cls=Command, example='janus-rt generate "a red fox in the snow" -n 4 --seed 7 --grid')
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@option("Picture", "-n", "--n", type=click.IntRange(1), default=4, help="Pictures of each prompt.")
@option(
    "Picture",
    "--cfg-weight",
    type=FiniteFloat(-1000, 1000),
    show_default="the model's: 5, JanusFlow 2",
    help="Strength of guidance; 1 is none.",
)
@option(
    "Picture",
    "--solver",
    type=click.Choice(["euler", "ab2"]),
    show_default="euler",
    help="How the flow is integrated: euler as published, or ab2 in fewer steps; JanusFlow only.",
)
@option(
    "Picture",
    "--steps",
    type=click.IntRange(1, 10_000),
    show_default="the model's for the solver: euler 30, ab2 15",
    help="Steps of the flow; JanusFlow only.",
)
@option(
    "Picture",
    "--image",
    metavar="PATH",
    show_default="none",
    help="Reference picture for the prompts; only for checkpoints trained for it, such as Janus-4o.",
)
@exif_option
@option(
    "Picture",
    "--image-weight",
    type=FiniteFloat(0, 1000),
    show_default="5",
    help="Weight of the reference picture's visual features relative to its ids; not for JanusFlow.",
)
@option(
    "Picture",
    "--batch-size",
    type=click.IntRange(1),
    show_default="8, or what TensorRT's plans hold",
    help="Pictures drawn at once: more is faster and takes more memory.",
)
@sampling_options(None)
@out_option
@option("Output", "--grid", is_flag=True, help="Also write all pictures of a prompt as one.")
@option(
    "Output",
    "--upscale",
    type=click.IntRange(1, 8192),
    metavar="SIZE",
    show_default="native size",
    help="Scale pictures to SIZE x SIZE pixels (Lanczos).",
)
@option("Output", "--timings", is_flag=True, help="Print how long each stage took.")
@open_model
def generate(
    janus: "Janus",
    as_json: bool,
    quiet: bool,
    prompts: tuple[str, ...],
    n: int,
    out: Path,
    grid: bool,
    timings: bool,
    upscale: int | None,
    **settings: Any,
) -> None:
    """Draw pictures of each PROMPT into PNG files.

    Files are numbered and never overwritten. Their parameters are stored inside.
    """
    from .picture_folder import PictureFolder
    from .results import print_result

    folder, line = PictureFolder(out, janus, upscale), StatusLine(quiet)

    def report(path: Path, picture: "GeneratedImage", **more: Any) -> None:
        line.clear()
        if as_json:
            settings = picture.settings
            flow = {} if settings.solver is None else {"solver": settings.solver, "steps": settings.steps}
            print_result(janus, prompt=picture.prompt, seed=picture.seed, file=str(path), **more, **flow, timings=picture.timings)
        else:
            say(str(path))

    began, count = time.perf_counter(), 0
    # Only a grid needs pictures again, and only those of one prompt.
    of_prompt: list[GeneratedImage] = []
    with line:
        for picture in janus.stream(prompts, n, on_step=progress_bar(line, "drawing"), **settings):
            count += 1
            report(folder.save(picture), picture)
            if grid:
                of_prompt.append(picture)
                if len(of_prompt) == n:
                    report(folder.save_grid(of_prompt), of_prompt[0], grid=n)
                    of_prompt = []
    if not quiet:
        seconds, step = time.perf_counter() - began, picture.timings["step"]
        note(f"{count} picture{'s' * (count > 1)} in {seconds:.1f} s, {step:.1f} ms a step")
    if timings:
        for stage, spent in picture.timings.items():
            note(f"{stage:8}{spent:10.1f} ms")
