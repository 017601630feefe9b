"""How commands fail: one line on stderr and an exit code."""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..errors import JanusError
from .output import note, printable, set_up_streams

INTERRUPTED = 130
_PARAMETER = re.compile(r"\b(batch_size|cfg_weight|image_weight|max_length|max_tokens|top_k|top_p|backend(?==))\b(=?)")


@contextmanager
def report_errors(debug: bool) -> Iterator[None]:
    """Whatever goes wrong becomes one line on stderr and exit code 1, Ctrl-C 130; `debug` shows the traceback of an error."""
    set_up_streams()
    try:
        with warnings.catch_warnings():
            # Libraries warn about odd files in lines of their own; what matters comes back as an error.
            warnings.simplefilter("ignore")
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except KeyboardInterrupt:
        note("Interrupted")
        raise click.exceptions.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output went away, as `head` does. Nothing is left to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(1) from None
    except MemoryError as error:
        if debug:
            raise
        raise click.ClickException(f"out of memory ({one_line(error)}); ask for less at once, or use a machine with more") from None
    except Exception as error:
        if debug:
            raise
        text = one_line(error)
        if isinstance(error, JanusError | ValueError):
            text = in_flags(text)
        elif not isinstance(error, OSError):
            text = f"{type(error).__name__}: {text}; this is a fault of ours: run again with --debug and report it"
        raise click.ClickException(text) from None


def in_flags(text: str) -> str:
    """What a library's error says of its parameters, in the words of a command: `top_k` is `--top-k`, `backend=cpu` is `--backend cpu`."""
    return _PARAMETER.sub(lambda match: f"--{match[1].replace('_', '-')}{' ' if match[2] else ''}", text)


def one_line(error: Exception) -> str:
    """The message on one printable line; the error's type where it has none."""
    return printable(" ".join(str(error).split())) or type(error).__name__
