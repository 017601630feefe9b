"""janus-rt: thin commands over `Janus`, one module each. No logic of the model lives here."""

import click

from .. import __version__
from ..console.commands import Group
from .bench import bench
from .chat import chat
from .describe import describe
from .generate import generate
from .info import info
from .serve import serve, ui
from .verify import verify


@click.group(cls=Group)
@click.version_option(__version__)
def main() -> None:
    """Draw pictures from text and answer questions about pictures with DeepSeek Janus."""


for command in (generate, describe, chat, info, verify, bench, serve, ui):
    main.add_command(command)
