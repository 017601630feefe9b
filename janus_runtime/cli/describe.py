"""janus-rt describe."""

from typing import TYPE_CHECKING, Any

import click

from ..console.commands import Command, option
from ..console.output import note
from .options import exif_option, max_tokens_option, open_model, sampling_options

if TYPE_CHECKING:
    from ..janus import Janus


@click.command(cls=Command, example='janus-rt describe photo.jpg --ask "What is in the background?"')
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@option("Answer", "--ask", default="Describe this image.", metavar="QUESTION", help="The question, about all images together.")
@exif_option
@max_tokens_option
@sampling_options(0.0)
@open_model
def describe(janus: "Janus", as_json: bool, quiet: bool, images: tuple[str, ...], ask: str, **settings: Any) -> None:
    """Answer a question about one or several pictures.

    The text streams as it comes.
    """
    from .results import print_answer, print_result

    answer = janus.describe(list(images), ask, **settings)
    if as_json:
        for _ in answer:
            pass
    else:
        print_answer(answer)
    if not quiet:
        first = (answer.timings["encode"] + answer.timings["prefill"]) / 1e3
        count = len(answer.text_ids)
        each = answer.timings["steps"] / max(count, 1)
        note(f"{count} token{'s' * (count != 1)}, first after {first:.1f} s, {each:.1f} ms each")
    if as_json:
        print_result(janus, prompt=ask, images=list(images), seed=settings["seed"], text=answer.text, stop=answer.stop,
                     tokens=len(answer.text_ids), timings=answer.timings)  # fmt: skip
