"""The `chat` command's turns: what a line typed by a person means."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import PictureFolder
from .image import open_image
from .image_to_text import Answer
from .janus import Janus
from .sampling import Sampler
from .text_to_image import GeneratedImage, OnStep

Progress = Callable[[], AbstractContextManager[OnStep | None]]

HELP = "/image PATH, /forget (pictures not asked about yet), /draw PROMPT, /quit"


@dataclass(frozen=True)
class Drawn:
    path: Path
    picture: GeneratedImage


class Conversation:
    """Holds one `Chat`, the pictures for its next question, and the folder that `/draw` writes to."""

    def __init__(self, janus: Janus, out: Path, max_tokens: int, max_length: int | None, settings: dict[str, Any]) -> None:
        self._janus = janus
        self._chat = janus.chat(max_length)
        self._out = out
        self._images: list[Any] = []
        self._max_tokens = max_tokens
        # The next turn's: each has noise of its own.
        self.seed: int = settings["seed"]
        self._sampler = Sampler(settings["temperature"], settings["top_k"], settings["top_p"])

    def take(self, line: str, progress: Progress) -> Answer | Drawn | None:
        """One line -> an answer to iterate, a drawn picture, or None where there is nothing to say. Raises like `Chat.say`."""
        if not line:
            return None
        command, _, rest = line.partition(" ") if " " in line else line.partition("\t")
        rest = rest.strip()
        if command == "/image" and rest:
            # No shell stands between: quotes of a dragged file and ~ are ours to take off.
            path = rest[1:-1] if rest[0] == rest[-1] and rest[0] in "'\"" else rest
            self._images.append(open_image(Path(path).expanduser()))
            return None
        if command == "/forget" and not rest:
            self._images = []
            return None
        if command == "/draw" and rest:
            return self._draw(rest, progress)
        if command.startswith("/"):
            raise ValueError(f"{line[:40]!r} is no command; there are {HELP}")
        answer = self._chat.say(line, self._images, max_tokens=self._max_tokens, sampler=self._sampler, seed=self.seed)
        self._images = []
        self.seed += 1
        return answer

    def _draw(self, prompt: str, progress: Progress) -> Drawn:
        folder = PictureFolder(self._out, self._janus)
        with progress() as on_step:
            (picture,) = self._janus.generate(prompt, seed=self.seed, on_step=on_step)
        self.seed += 1
        return Drawn(folder.save(picture), picture)
