"""janus-rt: thin commands over `Janus`. No logic of the model lives here."""

import functools
import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import JanusError
from .reporting import line_start, one_line, progress, reported

if TYPE_CHECKING:
    from .image_to_text import Answer
    from .janus import Janus
    from .manifest import Manifest
    from .text_to_image import GeneratedImage


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every command shares; opens the model and hands it in as `janus`."""

    @click.option("--bundle", metavar="DIR", help="The bundle to run.  [default: janus-nano, which is built in]")
    @click.option(
        "--backend",
        type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
        default="auto",
        show_default=True,
        help="Where to run; auto takes the best that is there and says so.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object per result on stdout.")
    @click.option("--quiet", is_flag=True, help="No progress and no notes on stderr.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(bundle: str | None, backend: Any, as_json: bool, quiet: bool, debug: bool, **options: Any) -> None:
        with reported(debug):
            if quiet:
                import logging

                logging.getLogger("janus_runtime").setLevel(logging.ERROR)
            from .bundle import NANO
            from .janus import load

            with load(NANO if bundle is None else bundle, backend) as janus:
                if not quiet:
                    click.echo(f"{janus.manifest.name}, {janus.manifest.precision}, {janus.backend_description}", err=True)
                    if janus.manifest.random_weights:
                        click.echo("the weights of this bundle are random: expect noise, not pictures or sense", err=True)
                command(janus=janus, as_json=as_json, quiet=quiet, **options)

    return wrapped


def _finite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """click's ranges let NaN through."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number", context, parameter)
    return value


def sampling_options(temperature: float | None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option(
                "--top-p",
                type=click.FloatRange(0, 1, min_open=True),
                default=1.0,
                callback=_finite,
                help="Keep the most likely ids that reach this probability.",
            ),
            click.option("--top-k", type=click.IntRange(0), default=0, help="Keep the k most likely ids; 0 keeps all."),
            click.option("--temperature", type=click.FloatRange(0), default=temperature, callback=_finite, help="0 is greedy."),
            click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True),
        ):
            command = option(command)
        return command

    return add


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Draw pictures from text and answer questions about pictures with DeepSeek Janus."""


@main.command()
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@click.option("-n", "--n", type=click.IntRange(1), default=4, show_default=True, help="Pictures of each prompt.")
@click.option("--cfg-weight", type=click.FloatRange(-1000, 1000), callback=_finite, help="Strength of guidance; default: the model's.")
@sampling_options(None)
@click.option("--steps", type=click.IntRange(1, 10_000), help="Of JanusFlow's drawing; default: the model's, 30.")
@click.option("--image", metavar="PATH", help="A picture that the prompts speak of, for checkpoints trained to draw from one (Janus-4o).")
@click.option(
    "--image-weight",
    type=click.FloatRange(0, 1000),
    callback=_finite,
    help="How much what is seen of it counts beside its ids, of models that draw ids; default: 5.",
)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Pictures drawn at once.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), show_default=True)
@click.option("--grid", is_flag=True, help="Also write all pictures of a prompt as one.")
@click.option("--timings", is_flag=True, help="Say how long each stage took.")
@click.option("--upscale", type=click.IntRange(1, 8192), metavar="SIZE", help="Scale pictures to this size (Lanczos).")
@common
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
    """Draw pictures of one or several PROMPTs into PNG files. Files are never overwritten."""
    from .files import PictureFolder

    folder = PictureFolder(out, janus, upscale)

    began = time.perf_counter()

    def save(picture: "GeneratedImage") -> None:
        path = folder.save(picture)
        click.echo(line_start(), nl=False, err=True)
        if as_json:
            _print_json(janus, prompt=picture.prompt, seed=picture.seed, file=str(path), timings=picture.timings)
        else:
            click.echo(path)

    with progress("drawing", quiet) as on_step:
        pictures = []
        for picture in janus.stream(prompts, n, on_step=on_step, **settings):
            save(picture)
            pictures.append(picture)
    if not quiet:
        seconds, step = time.perf_counter() - began, pictures[-1].timings["step"]
        click.echo(f"{len(pictures)} picture{'s' * (len(pictures) > 1)} in {seconds:.1f} s, {step:.1f} ms a step", err=True)
    if timings:
        for stage, spent in pictures[-1].timings.items():
            click.echo(f"{stage:8}{spent:10.1f} ms", err=True)
    if grid:
        for start in range(0, len(pictures), n):
            path = folder.save_grid(pictures[start : start + n])
            if as_json:
                _print_json(
                    janus, prompt=pictures[start].prompt, seed=settings["seed"], file=str(path), grid=n, timings=pictures[start].timings
                )
            else:
                click.echo(path)


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--ask", default="Describe this image.", show_default=True, metavar="QUESTION")
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True)
@sampling_options(0.0)
@common
def describe(janus: "Janus", as_json: bool, quiet: bool, images: tuple[str, ...], ask: str, **settings: Any) -> None:
    """Answer one question about all IMAGEs together; the text streams as it comes."""
    answer = janus.describe(list(images), ask, **settings)
    _print_answer(answer, as_json)
    if not quiet:
        first = (answer.timings["encode"] + answer.timings["prefill"]) / 1e3
        count = len(answer.text_ids)
        each = answer.timings["steps"] / max(count, 1)
        click.echo(f"{count} token{'s' * (count != 1)}, first after {first:.1f} s, {each:.1f} ms each", err=True)
    if as_json:
        _print_json(janus, prompt=ask, images=list(images), seed=settings["seed"], text=answer.text, stop=answer.stop,
                    tokens=len(answer.text_ids), timings=answer.timings)  # fmt: skip


@main.command()
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--max-length", type=click.IntRange(2), help="Tokens that a conversation may hold.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), show_default=True)
@sampling_options(0.0)
@common
def chat(janus: "Janus", as_json: bool, quiet: bool, max_tokens: int, max_length: int | None, out: Path, **settings: Any) -> None:
    """Talk. `/image PATH` adds a picture to the next question, `/draw PROMPT` draws one, `/quit` ends."""
    from .chat import HELP, Conversation, Drawn

    conversation = Conversation(janus, out, max_tokens, max_length, settings)
    interactive = sys.stdin.isatty() and not quiet
    if interactive:
        click.echo(HELP, err=True)
    failed = False
    for line in _typed_lines(interactive):
        if line == "/quit":
            break
        seed = conversation.seed
        try:
            result = conversation.take(line, lambda: progress("drawing", quiet))
            if isinstance(result, Drawn):
                if as_json:
                    _print_json(janus, prompt=result.picture.prompt, seed=seed, file=str(result.path), timings=result.picture.timings)
                else:
                    click.echo(result.path)
            elif result is not None:
                _print_answer(result, as_json)
                if as_json:
                    _print_json(janus, prompt=line, seed=seed, text=result.text, stop=result.stop, timings=result.timings)
        except BrokenPipeError:
            raise
        except (JanusError, OSError, ValueError) as error:
            # A mistyped path must not cost the conversation; in a script the exit code still tells.
            failed = True
            click.echo(f"Error: {one_line(error)}", err=True)
    if failed and not interactive:
        raise click.exceptions.Exit(1)


def _typed_lines(interactive: bool) -> Iterator[str]:
    """Lines of stdin, stripped. Bytes that are no UTF-8 come through and are refused with their line, not with the chat."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    while True:
        if interactive:
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.strip()


@main.command()
@common
def info(janus: "Janus", as_json: bool, quiet: bool) -> None:
    """Say what a bundle holds."""
    manifest = janus.manifest
    size = sum(file.bytes for file in manifest.files.values())
    if as_json:
        click.echo(json.dumps({"bundle": str(janus.bundle_path), "bytes": size, "plans": janus.plans, **json.loads(manifest.to_json())}))
        return
    model, vae = manifest.language_model, manifest.source.vae
    for label, value in (
        ("bundle", janus.bundle_path),
        ("model", f"{manifest.name} ({manifest.family}){', random weights' if manifest.random_weights else ''}"),
        ("source", f"{manifest.source.name}, {manifest.source.layout} layout, {manifest.source.dtype}{f', VAE {vae}' if vae else ''}"),
        ("precision", manifest.precision),
        ("tasks", ", ".join(manifest.tasks)),
        ("size", f"{size / 1e6:,.1f} MB in {len(manifest.files)} files"),
        ("decoder", f"{model.num_layers} layers, {model.hidden_size} wide, {model.max_length} tokens at most"),
        ("pictures", _drawn(manifest) if "generation" in manifest.tasks else "none"),
        ("graphs", ", ".join(manifest.graphs)),
        ("plans", ", ".join(janus.plans) or "none"),
        ("built with", ", ".join(f"{name} {version}" for name, version in manifest.built_with.items())),
    ):
        click.echo(f"{label:11}{value}")


def _drawn(manifest: "Manifest") -> str:
    picture, flow = manifest.image_output, manifest.flow
    size = f"{picture.size}x{picture.size}"
    if flow:
        latents = f"{flow.latent_size}x{flow.latent_size} latents of {flow.latent_channels} channels"
        return f"{size}, {latents}, {flow.steps} steps at {flow.times} times"
    return f"{size}, {picture.num_tokens} tokens of {picture.num_ids}"


@main.command()
@common
def verify(janus: "Janus", as_json: bool, quiet: bool) -> None:
    """Check a bundle: every file's hash, then every graph against its golden."""
    for name in janus.verify_hashes():
        if as_json:
            _print_json(janus, file=name, passed=True)
        else:
            click.echo(f"ok      {name}: hash")
    failed = []
    for check in janus.verify_goldens():
        if as_json:
            finite = check.difference if math.isfinite(check.difference) else None  # JSON has no infinity.
            _print_json(janus, graph=check.graph, difference=finite, tolerance=check.tolerance, passed=check.passed)
        else:
            click.echo(
                f"{'ok' if check.passed else 'FAILED':8}{check.graph}: differs by {check.difference:.1e}, {check.tolerance:.0e} allowed"
            )
        if not check.passed:
            failed.append(check.graph)
    if failed:
        raise JanusError(f"{', '.join(failed)}: not what torch computes; export again, or report it with this output")


@main.command()
@click.option("--rows", type=click.IntRange(1), default=2, show_default=True, help="Rows of an image step: two for each picture.")
@click.option("--seconds", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Time to spend, all stages together.")
@common
def bench(janus: "Janus", as_json: bool, quiet: bool, rows: int, seconds: float) -> None:
    """Time a bundle stage by stage, on a CPU beside the speed of its memory. On a GPU these steps go by way of the host, unlike a draw."""
    from .latency import read_bandwidth

    bandwidth = read_bandwidth() if janus.backend == "cpu" else None
    if not as_json:
        click.echo(f"{'stage':20}{'p50':>10}{'p95':>10}{'runs':>7}" + (f"   of {bandwidth:.1f} GB/s read bandwidth" if bandwidth else ""))
    for timing in janus.time_stages(rows, seconds):
        if as_json:
            _print_json(janus, stage=timing.stage, rows=rows, p50=timing.p50, p95=timing.p95, runs=timing.runs,
                        reads=timing.reads, gb_per_s=timing.gb_per_s, bandwidth_gb_per_s=bandwidth)  # fmt: skip
        else:
            share = f"   {timing.gb_per_s:.1f} GB/s, {timing.gb_per_s / bandwidth:.0%}" if timing.reads and bandwidth else ""
            click.echo(f"{timing.stage:20}{timing.p50:7.1f} ms{timing.p95:7.1f} ms{timing.runs:7}{share}")


def _print_answer(answer: "Answer", as_json: bool) -> None:
    for piece in answer:
        if not as_json:
            click.echo(piece, nl=False)
            sys.stdout.flush()
    if not as_json:
        click.echo()


def _print_json(janus: "Janus", **values: Any) -> None:
    click.echo(json.dumps({**values, "backend": janus.backend, "bundle": str(janus.bundle_path)}, ensure_ascii=False))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
