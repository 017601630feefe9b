"""Options that several commands share, and the model they open."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ..console.commands import FiniteFloat, option
from ..console.errors import report_errors
from ..console.output import note
from ..console.signals import exit_on_terminate

out_option = option(
    "Output", "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), help="Folder for pictures; made if absent."
)
exif_option = option(
    "Input",
    "--exif-orientation/--no-exif-orientation",
    default=True,
    help="Turn photos upright as their EXIF says, or leave them as stored, as the original Janus does.",
)
max_tokens_option = option("Answer", "--max-tokens", type=click.IntRange(1), default=512, help="Longest answer, in tokens.")


def open_model(command: Callable[..., None], limits: Sequence[str] = (), announce: bool = True) -> Callable[..., None]:
    """The options that every command shares; opens the model and passes it on as `janus`.

    `limits`: options of `command` that `load` takes, too. `announce`: say on stderr which model and backend it is.
    """

    @option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object per result.")
    @option("Output", "--quiet", is_flag=True, help="No progress and no notes on stderr.")
    @option("Common", "--bundle", metavar="DIR", show_default="janus-nano, built in", help="The model to run.")
    @option(
        "Common",
        "--backend",
        type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
        default="auto",
        help="Where to run; auto takes the best available and says which.",
    )
    @option("Common", "--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(bundle: str | None, backend: Any, as_json: bool, quiet: bool, debug: bool, **options: Any) -> None:
        with report_errors(debug), exit_on_terminate():
            if quiet:
                import logging

                logging.getLogger("janus_runtime").setLevel(logging.ERROR)
            from ..bundle.bundle import NANO
            from ..janus import load

            with load(NANO if bundle is None else bundle, backend, **{name: options[name] for name in limits}) as janus:
                if announce and not quiet:
                    note(f"{janus.manifest.name}, {janus.manifest.precision}, {janus.backend_description}")
                    if janus.manifest.random_weights:
                        note("the weights of this bundle are random: expect noise, not pictures or sense")
                command(janus=janus, as_json=as_json, quiet=quiet, **options)

    return wrapped


def sampling_options(temperature: float | None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--seed, --temperature, --top-k and --top-p; a `temperature` of None is the model's."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for add_option in (
            option("Sampling", "--top-p", type=FiniteFloat(0, 1, min_open=True), default=1.0,
                   help="Keep the most likely ids that reach this probability together."),
            option("Sampling", "--top-k", type=click.IntRange(0), default=0, help="Keep the k most likely ids; 0 keeps all."),
            option("Sampling", "--temperature", type=FiniteFloat(0), default=temperature,
                   show_default="the model's, 1" if temperature is None else True, help="Randomness of the draw; 0 is greedy."),
            option("Sampling", "--seed", type=click.IntRange(0, 2**64 - 1), default=0,
                   help="The same seed gives the same result; result i uses seed + i."),
        ):  # fmt: skip
            command = add_option(command)
        return command

    return add
