"""How commands fail and where they show progress: one line on stderr, exit code 1."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

from .errors import JanusError


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Whatever goes wrong becomes one line on stderr and exit code 1; with --debug the traceback."""
    # A closed stream is None here.
    sys.stdin, sys.stdout, sys.stderr = (
        stream or open(os.devnull, mode) for stream, mode in ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w"))
    )
    try:
        with warnings.catch_warnings():
            # Libraries warn about odd files in lines of their own; what matters comes back as an error.
            warnings.simplefilter("ignore")
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
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
        if not isinstance(error, JanusError | OSError | ValueError):
            text = f"{type(error).__name__}: {text}; this is a fault of ours: run again with --debug and report it"
        raise click.ClickException(text) from None


def line_start() -> str:
    """Back to an empty line on a terminal, where progress is shown in place; nothing elsewhere."""
    return "\r\x1b[K" if sys.stderr.isatty() else ""


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
