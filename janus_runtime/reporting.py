"""How commands fail and where they show progress: one line on stderr, exit code 1."""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
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


@contextmanager
def progress(label: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A callback that moves a bar on a terminal; None where nobody would see it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    first = 0.0

    def show(step: int, total: int) -> None:
        nonlocal first
        # From the first step on: what comes before it, loading and prefill, says nothing about the rest.
        first = first or time.perf_counter()
        rate = (step - 1) / (time.perf_counter() - first) if step > 1 else 0.0
        left = f"{rate:.1f}/s {(total - step) / rate:.0f}s left" if rate else ""
        filled = 30 * step // total
        bar = "█" * filled + "░" * (30 - filled)
        click.echo(f"\r{label} {bar} {step}/{total} {left} ", nl=False, err=True)

    try:
        yield show
    finally:
        click.echo(line_start(), nl=False, err=True)


def line_start() -> str:
    """Back to an empty line on a terminal, where progress is shown in place; nothing elsewhere."""
    return "\r\x1b[K" if sys.stderr.isatty() else ""


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
