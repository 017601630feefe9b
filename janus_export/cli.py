"""janus-export: checkpoint, engines and inspect. Thin and lazy: torch is imported by the verb that needs it."""

import contextlib
import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from janus_runtime import __version__
from janus_runtime.bundle.manifest import Precision
from janus_runtime.console.commands import Group, option
from janus_runtime.console.errors import report_errors
from janus_runtime.console.output import note, print_json, say
from janus_runtime.console.status import StatusLine
from janus_runtime.errors import BackendError
from janus_runtime.packages import importing

_M_MMAP_THRESHOLD = -3  # glibc's malloc.h

_vae = option(
    "Source",
    "--vae",
    metavar="SRC",
    show_default="the folder vae in SRC, else stabilityai/sdxl-vae",
    help="JanusFlow's VAE: hub id or folder.",
)
_debug = option("Common", "--debug", is_flag=True, help="Show the traceback of an error.")
_quiet = option("Common", "--quiet", is_flag=True, help="No progress on stderr.")


@click.group(cls=Group)
@click.version_option(__version__)
def main() -> None:
    """Turn a DeepSeek Janus checkpoint into a bundle that runs without torch."""


@main.command(example="janus-export checkpoint deepseek-ai/Janus-Pro-1B --out engines/janus-pro-1b")
@click.argument("source", metavar="SRC")
@option("Bundle", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The bundle's folder.")
@option(
    "Bundle",
    "--precision",
    type=click.Choice(get_args(Precision)),
    show_default="fp16 with a GPU, else int4; int8 for JanusFlow",
    help="Precision of the decoder's weights.",
)
@option(
    "Bundle",
    "--only",
    type=click.Choice(["understanding", "generation"]),
    show_default="both",
    help="Export one half and leave the other out.",
)
@option("Bundle", "--force", is_flag=True, help="Replace a bundle that is there.")
@_vae
@_quiet
@_debug
def checkpoint(source: str, out: Path, precision: Any, only: Any, vae: str | None, force: bool, quiet: bool, debug: bool) -> None:
    """Export a checkpoint to a bundle.

    SRC is a hub id, or a folder in the original, the HF, JanusFlow's or Paddle's layout.
    """
    with report_errors(debug), StatusLine(quiet) as line:
        with importing("export", "janus-export checkpoint"):
            from .bundle import export_bundle
            from .checkpoint.checkpoint import open_checkpoint
        from janus_runtime.paths import resolve_path

        from .errors import CheckpointError

        _return_freed_memory()
        if vae and only == "understanding":
            raise CheckpointError("--only understanding draws nothing and takes no VAE; leave --vae out")
        # Before a checkpoint is fetched.
        target = resolve_path(out)
        opened = open_checkpoint(source, vae, draws=only != "understanding")
        precision = precision or _default_precision(flow=opened.config.flow is not None)
        for text in opened.notes:
            note(f"note: {text}")
        notes: list[str] = []
        manifest = export_bundle(opened, target, precision, only, force, _stages(line, quiet), notes.append)
        size = sum(file.bytes for file in manifest.files.values())
        if not quiet:
            line.clear()
        for text in notes:
            note(f"note: {text}")
        if not quiet:
            note(f"{out}: {manifest.family}, {precision}, {size / 1e6:,.1f} MB")


def _numbers(context: click.Context, option: click.Parameter, text: str | None) -> list[int] | None:
    """`2,8,32` -> [2, 8, 32]. None where nothing was given."""
    try:
        return [int(number) for number in text.split(",")] if text is not None else None
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected numbers with commas between them, such as 2,8,32") from None


def _names(context: click.Context, option: click.Parameter, text: str | None) -> list[str] | None:
    """`a,b` -> [a, b]. None where nothing was given."""
    return [name.strip() for name in text.split(",")] if text is not None else None


@main.command(example="janus-export engines engines/janus-pro-1b --rows 2,8,32")
@click.argument("bundle", metavar="DIR", type=click.Path(path_type=Path))
@option("Plans", "--rows", callback=_numbers, show_default="2", help="Row counts of a step; a picture takes two rows. 2 is always built.")
@option(
    "Plans",
    "--lengths",
    callback=_numbers,
    show_default="704,1216; with 8 rows or more 320,512,704,1216",
    help="Cache lengths of a step.",
)
@option(
    "Plans",
    "--graphs",
    callback=_names,
    metavar="NAMES",
    show_default="all",
    help="Build these graphs only, such as language_model,image_head.",
)
@option(
    "Plans",
    "--flavour",
    type=click.Choice(["slice", "inplace"]),
    show_default="inplace where TensorRT can",
    help="How the cache is written.",
)
@option("Plans", "--level", type=click.IntRange(0, 5), default=3, help="Effort of the search for fast kernels; 5 searches longest.")
@_quiet
@_debug
def engines(bundle: Path, rows: Any, lengths: Any, graphs: list[str] | None, flavour: Any, level: int, quiet: bool, debug: bool) -> None:
    """Build TensorRT plans for this machine's GPU into a bundle.

    DIR is the bundle. Needs no torch.
    """
    with report_errors(debug), StatusLine(quiet) as line:
        from .tensorrt.plans import build_engines

        sizes = {name: value for name, value in (("rows", rows), ("lengths", lengths)) if value is not None}
        folder, key = build_engines(bundle, flavour=flavour, graphs=graphs, level=level, on_stage=_stages(line, quiet), **sizes)
        size = sum(plan.bytes for plan in key.plans.values())
        if not quiet:
            line.clear()
            note(f"{folder}: {key.flavour}, {len(key.plans)} plans, {size / 1e6:,.1f} MB")


@main.command(example="janus-export inspect deepseek-ai/Janus-Pro-1B --json")
@click.argument("source", metavar="SRC")
@_vae
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@_debug
def inspect(source: str, vae: str | None, as_json: bool, debug: bool) -> None:
    """Show what a checkpoint is and what would be exported.

    And what is wrong with it. SRC is a folder, or a hub id, which is fetched first.
    """
    with report_errors(debug):
        with importing("export", "janus-export inspect"):
            from .inspect import inspect_checkpoint

        report = inspect_checkpoint(source, vae)
        if as_json:
            print_json(report)
        else:
            for label, value in report.items():
                say(f"{label.replace('_', ' '):16}{', '.join(value) or 'none' if isinstance(value, list) else value}")
        if report["problems"]:
            raise click.exceptions.Exit(1)


def _default_precision(flow: bool) -> Precision:
    """Without a GPU a decoder's bytes are its time, hence int4; JanusFlow's steps are arithmetic, of which 4 bits save none."""
    from .tensorrt.builder import this_gpu

    try:
        this_gpu()
    except BackendError:
        return "int8" if flow else "int4"
    return "fp16"


def _return_freed_memory() -> None:
    """Has freed arrays go back to the system at once. glibc keeps more and more of them for itself: 2.0 instead of 1.4 GB at 1B."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc may have no such call
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def _stages(line: StatusLine, quiet: bool) -> Callable[[str, float], None]:
    """Shows stages, the share done and the time left in place on a terminal; elsewhere one line a stage."""
    last, start = "", time.monotonic()

    def show(stage: str, share: float) -> None:
        nonlocal last, start
        if not share:
            start = time.monotonic()
        if line.visible:
            left = (time.monotonic() - start) * (1 - share) / share if share else 0
            line.show(f"{stage} {share:.0%}, about {left:.0f} s left" if share else stage)
        elif stage != last and not quiet:
            note(stage)
        last = stage

    return show


if __name__ == "__main__":
    main()
