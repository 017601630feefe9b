"""The `chat` command's turns: what a line typed by a person means."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .files import PictureFolder
from .image import open_image
from .image_to_text import Answer
from .janus import Janus
from .sampling import Sampler
from .text_to_image import OnStep

Progress = Callable[[], AbstractContextManager[OnStep | None]]


class Conversation:
    """Holds one `Chat`, the pictures for its next question, and the folder that `/draw` writes to."""

    def __init__(self, janus: Janus, out: Path, max_tokens: int, max_length: int | None, settings: dict[str, Any]) -> None:
        self._janus = janus
        self._chat = janus.chat(max_length)
        self._images: list[Any] = []
        self._max_tokens = max_tokens
        self._seed = settings["seed"]
        self._sampler = Sampler(settings["temperature"], settings["top_k"], settings["top_p"])
        self._folder = PictureFolder(out, janus, {"cfg_weight": None, "temperature": None, "top_k": 0, "top_p": 1.0})

    def take(self, line: str, progress: Progress) -> Answer | Path | None:
        """One line -> an answer to iterate, the path of a drawn picture, or None where there is nothing to say."""
        command, _, rest = line.partition(" ")
        if not line:
            return None
        if command == "/image":
            self._images.append(open_image(rest.strip()))
            return None
        if command == "/draw":
            with progress() as on_step:
                (picture,) = self._janus.generate(rest, seed=self._seed, on_step=on_step)
            self._seed += 1
            return self._folder.save(picture)
        if command.startswith("/"):
            raise ValueError(f"no command {command}; there are /image PATH, /draw PROMPT and /quit")
        answer = self._chat.say(line, self._images, max_tokens=self._max_tokens, sampler=self._sampler, seed=self._seed)
        self._images = []
        return answer
