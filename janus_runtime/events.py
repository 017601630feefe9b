"""What a submitted request reports while it runs. `Finished` or `Failed` comes last, and exactly one of them."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from .drawing.request import GeneratedImage

Stop = Literal["eos", "length"]


@dataclass(frozen=True)
class Usage:
    """Tokens of a request. A picture that is drawn counts one token a step of its model: an id, or a step of JanusFlow's."""

    text_tokens: int
    """Of the prompt, as text."""
    image_tokens: int
    """Of the prompt, as pictures."""
    cached_tokens: int
    """Of the prompt, whose keys and values were there already."""
    completion_tokens: int


@dataclass(frozen=True)
class Waiting:
    """So many requests that came before it wait too. Only where there are some, and each time that their number changes."""

    ahead: int


@dataclass(frozen=True)
class Started:
    """It has rows and is being computed."""

    queued_ms: float


@dataclass(frozen=True)
class Progress:
    """Steps so far, over all pictures of the request."""

    step: int
    total: int


@dataclass(frozen=True)
class Partial:
    """Picture `number` of the request from what is drawn of it so far; `index` counts these from 0."""

    number: int
    index: int
    image: Image.Image


@dataclass(frozen=True)
class Drawn:
    """Picture `number` of the request is done. Pictures may be done in any order."""

    number: int
    picture: GeneratedImage


@dataclass(frozen=True)
class Said:
    """The next characters of an answer, never a part of one."""

    text: str
    text_ids: tuple[int, ...]
    """The ids that they came of; the last chunk may have none."""


@dataclass(frozen=True)
class Finished:
    usage: Usage
    stop: Stop | None
    """Why an answer ended; None for pictures."""


@dataclass(frozen=True)
class Failed:
    error: Exception
    """A JanusError, or MemoryError."""
    usage: Usage | None = None
    """What it had used until then; None if it had not started."""


Event = Waiting | Started | Progress | Partial | Drawn | Said | Finished | Failed
