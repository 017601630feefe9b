"""janus-rt chat."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console.commands import Command, option
from ..console.errors import one_line
from ..console.output import note, say
from ..console.signals import cancel_on_interrupt
from ..errors import Cancelled, ConversationFull, JanusError
from .options import exif_option, max_tokens_option, open_model, out_option, sampling_options

if TYPE_CHECKING:
    from ..chat import Answer
    from ..janus import Janus
    from .repl import Drawn


@click.command(cls=Command, example="janus-rt chat --bundle engines/janus-pro-1b")
@max_tokens_option
@option(
    "Answer",
    "--max-length",
    type=click.IntRange(2),
    show_default="the model's limit",
    help="Tokens that a conversation may hold, pictures included.",
)
@exif_option
@sampling_options(0.0)
@out_option
@open_model
def chat(janus: "Janus", as_json: bool, quiet: bool, out: Path, **settings: Any) -> None:
    """Talk about pictures over several turns, and draw some.

    /image PATH adds a picture to the next question, /draw PROMPT draws one, /new starts a new conversation, /help lists all
    commands. Ctrl-C stops an answer; twice at the prompt, or Ctrl-D, ends. On a pipe every line of stdin is a turn.
    """
    from .repl import HELP, Conversation, edit_lines, read_line

    conversation = Conversation(janus, out, quiet, **settings)
    terminal, edits = sys.stdin.isatty(), edit_lines()
    if terminal and not quiet:
        note(HELP)
    prompt = "> " if terminal and not quiet else ""
    failed = interrupted = False
    while True:
        try:
            line = read_line(prompt, edits)
            interrupted = False
            if line == "/quit":
                break
            # A script has no prompt to come back to: there Ctrl-C ends it all.
            with cancel_on_interrupt() if terminal else nullcontext() as cancel:
                seed = conversation.seed
                _print(janus, line, seed, conversation.take(line, cancel), as_json)
        except EOFError:
            if prompt:
                note("")
            break
        except KeyboardInterrupt:
            if interrupted or not terminal:
                raise
            interrupted = True
            note("\nCtrl-C again or Ctrl-D ends the chat")
        except Cancelled:
            note("stopped")
        except BrokenPipeError:
            raise
        except (JanusError, OSError, ValueError) as error:
            # A mistyped path must not cost the conversation; in a script the exit code reports it.
            failed = True
            note(f"Error: {one_line(error)}" + ("; /new starts one" if isinstance(error, ConversationFull) else ""))
    if failed and not terminal:
        raise click.exceptions.Exit(1)


def _print(janus: "Janus", line: str, seed: int, result: "Answer | Drawn | None", as_json: bool) -> None:
    from .repl import Drawn
    from .results import print_answer, print_result

    if isinstance(result, Drawn):
        if as_json:
            print_result(janus, prompt=result.picture.prompt, seed=seed, file=str(result.path), timings=result.picture.timings)
        else:
            say(str(result.path))
    elif result is not None:
        if not as_json:
            print_answer(result)
            return
        for _ in result:
            pass
        print_result(janus, prompt=line, seed=seed, text=result.text, stop=result.stop, timings=result.timings)
