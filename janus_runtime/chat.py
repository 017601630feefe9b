"""Image to text: pictures and questions in, text out as it comes.

Letters: k pictures, T new prompt ids, D hidden size.
"""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decoding.engines import Engines
from .decoding.session import stack_rows
from .decoding.sessions import open_session
from .errors import Cancelled, ConversationFull, JanusError
from .pictures.image import Picture, as_pictures, open_image, preprocess
from .prompt import Ids, Prompter, splice
from .sampling.guidance import Plain
from .sampling.noise import Noise, check_seed
from .sampling.sampler import Sampler


@dataclass(eq=False)
class _Turn:
    """What was said in one turn. The conversation keeps the last one; it knows nothing of the `Answer` that shows it."""

    begin: int
    """Length of the cache where the answer begins."""
    timings: dict[str, float]
    text_ids: list[int] = field(default_factory=list)
    stop: str | None = None


class Answer:
    """Iterate for chunks of text as they come; `text`, `text_ids` and `timings` (ms) grow with them.

    `stop` is "eos" or "length" at the end. Leaving the loop early is fine: what was said so far is what was said. `close`, or `with`,
    ends it; the answer of a conversation of its own, such as `describe` gives, frees its cache then, and at its end.
    """

    def __init__(self, turn: _Turn, chunks: Generator[str, None, None], closes: "Chat | None") -> None:
        """`closes`: a conversation that ends with this answer."""
        self.text = ""
        self._closes = closes
        self._turn = turn
        self._chunks = chunks

    @property
    def text_ids(self) -> list[int]:
        return self._turn.text_ids

    @property
    def stop(self) -> str | None:
        return self._turn.stop

    @property
    def timings(self) -> dict[str, float]:
        return self._turn.timings

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            chunk = next(self._chunks)
        except BaseException:
            self.close()
            raise
        self.text += chunk
        return chunk

    def close(self) -> None:
        """Ends the answer where it is."""
        self._chunks.close()
        if self._closes is not None:
            self._closes.close()

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Chat:
    """A conversation that keeps its cache between turns; `close`, or `with`, frees it. Not to be shared by threads."""

    def __init__(self, engines: Engines, prompter: Prompter, max_length: int, single: bool = False) -> None:
        """`single`: it has one turn, and closes with the answer."""
        self.engines = engines
        self.prompter = prompter
        self._single = single
        self._load_ms = engines.prepare("text")
        self._session = open_session(engines, "text", rows=1, max_length=max_length, grows=True)
        self._last: _Turn | None = None
        self._closed = False
        # A backend may hold less than was asked for.
        self._longer = "" if self._session.max_length == max_length else "; build longer plans with 'janus-export engines DIR --lengths …'"

    def close(self) -> None:
        """Frees the cache. An answer that still runs ends."""
        self._closed = True
        self._session.close()

    def __enter__(self) -> "Chat":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def max_length(self) -> int:
        return self._session.max_length

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return int(self._session.lengths[0])

    def say(
        self,
        text: str,
        images: Picture | Sequence[Picture] = (),
        *,
        exif_orientation: bool = True,
        max_tokens: int | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """One turn. Pictures come before the text, upright as their EXIF says unless `exif_orientation` is
        False, which leaves them as stored, as the original does. `sampler` defaults to greedy. Ends the answer before it, if it still runs.

        Reads pictures and prompt before it returns; the answer is drawn while it is iterated over. Raises ImageError,
        PromptError, ValueError at once, NumericalError and Cancelled at any time. A turn that raises before it returns
        has cost the conversation nothing; after any error the conversation can go on.
        """
        self._check_open()
        manifest = self.engines.manifest
        max_tokens = manifest.defaults.max_tokens if max_tokens is None else max_tokens
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; expected 1 or more")
        noise = Noise([check_seed(seed)], manifest.language_model.vocab_size)
        pictures = [preprocess(open_image(image, exif_orientation), manifest.image_input) for image in as_pictures(images)]
        ids = np.concatenate([self._unsaid(), self.prompter.question(text, len(pictures), first=self._last is None)])
        room = self.max_length - self.length - len(ids)
        if room < 1:
            raise ConversationFull(
                f"the conversation would have {self.max_length - room} tokens, the limit is {self.max_length} with at "
                f"least one left for the answer; use fewer pictures or less text, or start a new conversation{self._longer}"
            )
        timings, self._load_ms = {"load": self._load_ms}, 0.0
        if pictures:
            timings["load"] += self.engines.prepare("text", "vision_encoder")
        start = time.perf_counter()
        embeds = self._embed(ids, pictures, cancel)
        encoded = time.perf_counter()
        logits = stack_rows(self._session.prefill([embeds], [0], "text"))
        timings |= {"encode": (encoded - start) * 1e3, "prefill": (time.perf_counter() - encoded) * 1e3, "steps": 0.0}
        turn = self._last = _Turn(self.length, timings)
        limit = min(max_tokens, room)
        drawn = self._session.draw(logits, limit, sampler or Sampler(temperature=0), noise, Plain())
        chunks = self.prompter.decode_stream(self._take(drawn, limit, turn, cancel))
        return Answer(turn, chunks, closes=self if self._single else None)

    def _check_open(self) -> None:
        if self._closed:
            raise JanusError("this conversation is closed; start another with janus.chat()")

    def _embed(self, ids: Ids, pictures: list[NDArray[np.float32]], cancel: threading.Event | None) -> NDArray[Any]:
        """Ids [T] and the pixels of their pictures -> embeddings [T, D]. Pictures one at a time: activations are large."""
        embeds = self.engines.embed_text(ids)
        features = []
        for pixels in pictures:
            _check(cancel, 0)
            features.append(self.engines.encode_image(pixels))
        if features:
            splice(embeds, ids, self.prompter.replaced, np.stack(features))
        _check(cancel, 0)
        return embeds

    def _unsaid(self) -> Ids:
        """Ids that belong to the conversation but are not in the cache: the last one drawn, and the end of the turn."""
        if self._last is None:
            return np.zeros(0, np.int32)
        in_cache = self.length - self._last.begin
        return np.array([*self._last.text_ids[in_cache:], self.prompter.tokens.eos.id], np.int32)

    def _take(self, drawn: Iterator[Ids], limit: int, turn: _Turn, cancel: threading.Event | None) -> Iterator[int]:
        """Yields drawn ids up to the end token, which is not yielded, or `limit`, and keeps them in `turn`."""
        start = time.perf_counter()
        while len(turn.text_ids) < limit:
            self._check_open()
            if turn is not self._last:
                raise JanusError("this answer ended when the next turn began; read it before you go on")
            _check(cancel, len(turn.text_ids))
            token = int(next(drawn)[0])
            if token == self.prompter.tokens.eos.id:
                turn.stop = "eos"
                break
            turn.text_ids.append(token)
            turn.timings["steps"] = (time.perf_counter() - start) * 1e3
            yield token
        else:
            turn.stop = "length"


def _check(cancel: threading.Event | None, num_tokens: int) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"cancelled after {num_tokens} tokens")
