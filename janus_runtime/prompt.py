"""Text in: conversation -> prompt string -> ids, its unconditional twin, image placeholders and splice.

Rules are the original `VLChatProcessor`'s. Letters: T ids of one prompt, D hidden size, k pictures.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer as _Tokenizer
from tokenizers import __version__ as tokenizers_version
from tokenizers.decoders import DecodeStream

from .bundle.manifest import Manifest, Template
from .errors import BundleError, PromptError, first_line

Ids = NDArray[np.int32]


def render(template: Template, messages: Sequence[tuple[str, str]], system: str = "") -> str:
    """(role, text) messages -> prompt string. An empty text opens that role's turn: `role:` and no space."""
    parts = [system + template.after_system] if system else []
    for index, (role, text) in enumerate(messages):
        end = template.after_assistant if index % 2 else template.after_user
        parts.append(f"{role}: {text.strip()}{end}" if text.strip() else f"{role}:")
    return "".join(parts).strip()


def explain_unreadable(path: Path, error: Exception, remedy: str) -> str:
    """Why the tokenizers library could not read `path`: a newer format, or, with `remedy`, no tokenizer at all."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(raw["model"], dict) and "version" in raw and "added_tokens" in raw
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        whole = False
    if not whole:
        return f"{path} is not a tokenizer: {first_line(error)}; {remedy}"
    return (
        f"tokenizers {tokenizers_version}, installed here, cannot read {path} ({first_line(error):.200}): it was saved by a newer "
        f"version; run pip install --upgrade tokenizers, and if it stays, {remedy}"
    )


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. A user's pictures come before the text, in order."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[Image.Image, ...] = ()


def are_in_turn(roles: Sequence[str]) -> bool:
    """Whether messages are of a system or none, then of user and assistant in turn, the user last. The models were trained for no other
    order."""
    turns = list(roles[1:] if roles[:1] == ["system"] else roles)
    return turns == ["user", "assistant"] * (len(turns) // 2) + ["user"]


class TextStream:
    """Text of ids as they come, never a part of a character. What `feed` and `end` give joins to the text of all ids."""

    def __init__(self, tokenizer: _Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._text = ""

    def feed(self, token: int) -> str:
        self._ids.append(token)
        text: str = self._stream.step(self._tokenizer, token) or ""
        self._text += text
        return text

    def end(self) -> str:
        whole: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        return whole[len(self._text) :]


class Prompter:
    """Builds ids for one model: its tokenizer, special tokens and template, all from the bundle."""

    def __init__(self, manifest: Manifest, tokenizer_path: Path) -> None:
        try:
            self._tokenizer = _Tokenizer.from_file(str(tokenizer_path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(explain_unreadable(tokenizer_path, error, "export the bundle again")) from None
        # Settings that some trainers save; at inference they would cut or fill every prompt.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.manifest = manifest
        self.tokens = manifest.tokens
        self.template = manifest.template
        added = self._tokenizer.get_added_tokens_decoder().values()
        known = [getattr(self.tokens, name) for name in self.tokens.__dataclass_fields__]
        # Janus-1.3B's roles are plain words that anyone may use; Pro's are tokens of their own.
        roles = {token.content for token in added} & {self.template.user, self.template.assistant}
        self._reserved = sorted(roles | {token.content for token in added if token.special} | {token.text for token in known})
        for token in known:
            if (got := self._tokenizer.token_to_id(token.text)) != token.id:
                raise BundleError(f"{tokenizer_path} gives {token.text} the id {got}, the manifest {token.id}; export again")

    def encode(self, text: str) -> list[int]:
        """Text with special tokens spelled out -> ids; nothing is added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def text_stream(self) -> "TextStream":
        return TextStream(self._tokenizer)

    def image_string(self, text: str, from_image: bool = False) -> str:
        """The prompt that draws: no system text, begin-of-image directly after the last colon.

        JanusFlow's ends with the colon: the published loop cuts the embedding of what comes after. `from_image` puts a picture
        before the text: as it is seen, and, where pictures are ids, as those after it (Janus-4o's way), a pad in their place.
        """
        begin, end, seen = (token.text for token in (self.tokens.begin_of_image, self.tokens.end_of_image, self.tokens.image_placeholder))
        drawn = f"{begin}{self.tokens.pad.text}{end}"
        picture = (f"{seen}\n" if self.manifest.flow else f"{seen}{drawn}") if from_image else ""
        messages = [(self.template.user, picture + self._user_text(text)), (self.template.assistant, "")]
        return render(self.template, messages) + ("" if self.manifest.flow else self.tokens.begin_of_image.text)

    def image(self, text: str, from_image: bool = False) -> Ids:
        """Text -> ids [T] that start with BOS and end where the picture begins. Raises PromptError."""
        ids = self.expand([self.tokens.bos.id, *self.encode(self.image_string(text, from_image))])
        ids = np.repeat(ids, np.where(ids == self.tokens.pad.id, self.manifest.image_output.num_tokens, 1))
        # JanusFlow has the time before its picture.
        limit = self.manifest.language_model.max_length - self.manifest.image_output.num_tokens - (self.manifest.flow is not None)
        if limit < 2:
            raise PromptError(f"this model takes {self.manifest.language_model.max_length} tokens in all, too few to draw a picture")
        if len(ids) > limit:
            raise PromptError(f"prompt has {len(ids)} tokens, this model takes {limit} beside a picture; shorten it: {text[:40]!r}…")
        return ids

    def blank(self, ids: Ids) -> Ids:
        """The unconditional twin [T]: everything between first and last id becomes pad, which is attended."""
        twin = ids.copy()
        twin[1:-1] = self.tokens.pad.id
        return twin

    def question_string(self, text: str, num_images: int, first: bool = True) -> str:
        """One user turn, each picture a placeholder on a line of its own before the text."""
        user = (self.tokens.image_placeholder.text + "\n") * num_images + self._user_text(text)
        messages = [(self.template.user, user), (self.template.assistant, "")]
        return render(self.template, messages, self.template.system if first else "")

    def question(self, text: str, num_images: int, first: bool = True) -> Ids:
        """Ids [T] of one user turn with every placeholder expanded; BOS and system text on the first only."""
        ids = self.encode(self.question_string(text, num_images, first))
        return self.expand([self.tokens.bos.id, *ids] if first else ids)

    def conversation(self, messages: Sequence["Message"]) -> Ids:
        """Ids [T] of a whole conversation, every picture expanded: a system message or none, then user and assistant in turn, the user
        last. Raises PromptError."""
        system, turns = self.template.system, list(messages)
        if turns and turns[0].role == "system":
            system = self._user_text(turns.pop(0).text)
        if not are_in_turn([message.role for message in messages]):
            raise PromptError(
                f"got messages of {', '.join(message.role for message in messages) or 'nobody'}; expected a system message or none, then "
                "user and assistant in turn, with the user's last"
            )
        if any(message.images for message in messages if message.role != "user"):
            raise PromptError("got a picture in a message that is not the user's; expected pictures in user messages only")
        roles = {"user": self.template.user, "assistant": self.template.assistant}
        lines = [
            (roles[turn.role], (self.tokens.image_placeholder.text + "\n") * len(turn.images) + self._user_text(turn.text))
            for turn in turns
        ]
        return self.expand([self.tokens.bos.id, *self.encode(render(self.template, [*lines, (self.template.assistant, "")], system))])

    def picture_places(self, ids: Ids) -> list[int]:
        """Where each picture's features begin in an expanded prompt."""
        places: list[int] = np.flatnonzero(np.isin(ids, self.replaced))[:: self.manifest.image_input.num_tokens].tolist()
        return places

    def expand(self, ids: Sequence[int]) -> Ids:
        """Each placeholder id -> begin, as many placeholders as a picture has tokens, end."""
        placeholder, spec = self.tokens.image_placeholder.id, self.manifest.image_input
        block = [
            self.tokens.begin_of_image.id,
            *[placeholder] * (spec.num_tokens - spec.includes_begin),
            self.tokens.end_of_image.id,
        ]
        return np.array([new for id in ids for new in (block if id == placeholder else (id,))], np.int32)

    @property
    def replaced(self) -> list[int]:
        """The ids of an expanded prompt whose embeddings give way to a picture's features."""
        begin = [self.tokens.begin_of_image.id] if self.manifest.image_input.includes_begin else []
        return [*begin, self.tokens.image_placeholder.id]

    def _user_text(self, text: str) -> str:
        """A user's text must not smuggle in turns or pictures: special tokens are ours to place."""
        if not isinstance(text, str):
            raise PromptError(f"got a {type(text).__name__} for a prompt; expected text")
        if not text.strip():
            raise PromptError("the prompt is empty; expected some text")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise PromptError("the text is not valid UTF-8; save or type it again as UTF-8")
        for token in self._reserved:
            if token in text:
                raise PromptError(f"the text holds the reserved token {token}; take it out")
        return text


def splice(embeds: NDArray[np.generic], ids: Ids, replaced: Sequence[int], features: NDArray[np.generic]) -> None:
    """Writes picture features [k, tokens, D] over the rows of `embeds` [T, D] whose id is one of `replaced`, in place."""
    places = np.flatnonzero(np.isin(ids, replaced))
    rows = features.reshape(-1, features.shape[-1])
    assert len(places) == len(rows), f"{len(places)} places for {len(rows)} feature rows"
    embeds[places] = rows
