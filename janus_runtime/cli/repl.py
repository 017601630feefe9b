"""The `chat` command's turns: how a line is read, and what it means."""

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..chat import Answer
from ..console.output import note
from ..console.status import StatusLine, progress_bar
from ..drawing.request import GeneratedImage
from ..janus import Janus
from ..pictures.image import open_image
from ..sampling.sampler import Sampler
from .picture_folder import PictureFolder

COMMANDS = {
    "/image PATH": "add a picture to the next question",
    "/forget": "drop the pictures not asked about yet",
    "/draw PROMPT": "draw a picture",
    "/new": "start a new conversation",
    "/help": "show this list",
    "/quit": "end",
}
HELP = "\n".join(f"  {command:14}{does}" for command, does in COMMANDS.items())


def edit_lines() -> bool:
    """Turns on arrow keys and a history, which is kept in memory only, where a person types. -> whether `read_line` edits.

    Python edits a line of stdin only if what it shows can go to stdout.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        import readline  # noqa: F401  (its import is what makes input() edit)
    except ImportError:
        pass  # The terminal's own editing is left: erase a character, erase the line.
    return True


def read_line(prompt: str, edits: bool) -> str:
    """One line, stripped. An editor must show the prompt itself, for it redraws the line. Raises EOFError, KeyboardInterrupt."""
    if edits:
        return input(prompt).strip()
    note(prompt, end="")
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


@dataclass(frozen=True)
class Drawn:
    path: Path
    picture: GeneratedImage


class Conversation:
    """Holds one `Chat`, the pictures for its next question, and the folder that `/draw` writes to."""

    def __init__(
        self,
        janus: Janus,
        out: Path,
        quiet: bool,
        *,
        max_tokens: int,
        max_length: int | None,
        exif_orientation: bool,
        seed: int,
        **sampling: Any,
    ) -> None:
        self._janus = janus
        self._out = out
        self._quiet = quiet
        self._max_tokens = max_tokens
        self._max_length = max_length
        self._exif_orientation = exif_orientation
        self._first_seed = seed
        self._sampler = Sampler(**sampling)
        self._start()

    def _start(self) -> None:
        self._chat = self._janus.chat(self._max_length)
        self._images: list[Any] = []
        # The next turn's: each has noise of its own.
        self.seed = self._first_seed

    def take(self, line: str, cancel: threading.Event | None = None) -> Answer | Drawn | None:
        """One line -> an answer to iterate, a drawn picture, or None where there is nothing to say. Raises like `Chat.say`."""
        if not line:
            return None
        command, _, rest = line.partition(" ") if " " in line else line.partition("\t")
        rest = rest.strip()
        if command == "/image" and rest:
            # No shell stands between: quotes of a dragged file and ~ are ours to take off.
            path = rest[1:-1] if rest[0] == rest[-1] and rest[0] in "'\"" else rest
            self._images.append(open_image(Path(path).expanduser(), self._exif_orientation))
            return None
        if command == "/draw" and rest:
            return self._draw(rest, cancel)
        if line == "/forget":
            self._images = []
            return None
        if line == "/new":
            # The old cache goes before the new one comes.
            del self._chat
            self._start()
            return None
        if line == "/help":
            note(HELP)
            return None
        if command.startswith("/"):
            raise ValueError(f"{line[:40]!r} is no command; there are {', '.join(COMMANDS)}")
        answer = self._chat.say(line, self._images, max_tokens=self._max_tokens, sampler=self._sampler, seed=self.seed, cancel=cancel)
        self._images = []
        self.seed += 1
        return answer

    def _draw(self, prompt: str, cancel: threading.Event | None) -> Drawn:
        folder = PictureFolder(self._out, self._janus)
        with StatusLine(self._quiet) as line:
            (picture,) = self._janus.generate(prompt, seed=self.seed, on_step=progress_bar(line, "drawing"), cancel=cancel)
        self.seed += 1
        return Drawn(folder.save(picture), picture)
