"""Image to text: pictures and questions in, text out as it comes.

Letters: k pictures, T new prompt ids, D hidden size.
"""

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from .engines import Engines
from .errors import Cancelled, PromptError
from .image import Picture, open_image, preprocess
from .noise import Noise, check_seed
from .prompt import Ids, Prompter, splice
from .sampling import Sampler
from .session import Session


class Answer:
    """Iterate for pieces of text as they come; afterwards `text`, `text_ids`, `stop` and `timings` (ms) are set.

    `stop` is "eos" or "length". Leaving the loop early is fine: what was said so far is what was said.
    """

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self.text = ""
        self.text_ids: list[int] = []
        self.stop: str | None = None
        self.timings: dict[str, float] = {}

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = next(self._pieces)
        self.text += piece
        return piece


class Chat:
    """A conversation that keeps its cache between turns. One at a time: not to be shared by threads."""

    def __init__(self, engines: Engines, prompter: Prompter, max_length: int) -> None:
        self.engines = engines
        self.prompter = prompter
        self._load_ms = engines.prepare("text_embed", "text_head")
        self._session: Session = engines.session("text", rows=1, max_length=max_length)
        # Ids that belong to the conversation but are not in the cache yet.
        self._pending: list[int] = []
        self._turns = 0

    @property
    def max_length(self) -> int:
        return self._session.max_length

    def say(
        self,
        text: str,
        images: Sequence[Picture] = (),
        *,
        max_tokens: int | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """One turn. Pictures come before the text. `sampler` defaults to greedy.

        Raises ImageError and PromptError at once; NumericalError and Cancelled while iterating.
        """
        load, self._load_ms = self._load_ms, 0.0
        if images:
            load += self.engines.prepare("vision_encoder")
        start = time.perf_counter()
        manifest = self.engines.manifest
        max_tokens = manifest.defaults.max_tokens if max_tokens is None else max_tokens
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; expected 1 or more")
        check_seed(seed)
        pictures = [preprocess(open_image(image), manifest.image_input) for image in images]
        turn = self.prompter.question(text, len(pictures), first=self._turns == 0)
        ids = np.concatenate([np.array(self._pending, np.int32), turn])
        room = self.max_length - int(self._session.lengths[0]) - len(ids)
        if room < 1:
            raise PromptError(
                f"the conversation would have {self.max_length - room} tokens, the limit is {self.max_length} with at "
                "least one left for the answer; use fewer pictures or less text, or start a new conversation"
            )
        sampler = sampler or Sampler(temperature=0)
        encoded = time.perf_counter()
        embeds = self.engines.embed_text(ids)
        if pictures:
            features = self.engines.encode_images(np.stack(pictures))
            splice(embeds, ids, self.prompter.tokens.image_placeholder.id, features)
            encoded = time.perf_counter()
        # From here on the turn is part of the conversation, whatever becomes of its answer.
        logits = self._session.prefill([embeds])
        self._turns += 1
        self._pending = [self.prompter.tokens.eos.id]
        prefilled = time.perf_counter()
        drawn = self._session.draw(logits, sampler, Noise([seed], manifest.language_model.vocab_size))
        answer = Answer(iter(()))
        answer.timings = {"load": load, "encode": (encoded - start) * 1e3, "prefill": (prefilled - encoded) * 1e3}
        token_ids = self._take(drawn, min(max_tokens, room), answer, cancel)
        answer._pieces = self.prompter.decode_stream(token_ids)
        return answer

    def _take(self, drawn: Iterator[Ids], limit: int, answer: Answer, cancel: threading.Event | None) -> Iterator[int]:
        """Yields drawn ids up to the end token, which is not yielded, or `limit`; keeps `answer` and the pending ids true."""
        eos = self.prompter.tokens.eos.id
        start = time.perf_counter()
        # The range comes first, so that no step is computed for an id that nobody will see.
        for _, (token,) in zip(range(limit), drawn, strict=False):
            if cancel is not None and cancel.is_set():
                raise Cancelled(f"cancelled after {len(answer.text_ids)} tokens")
            if token == eos:
                answer.stop = "eos"
                self._pending = [eos]
                break
            answer.text_ids.append(int(token))
            self._pending = [int(token), eos]
            yield int(token)
        else:
            answer.stop = "length"
        answer.timings["steps"] = (time.perf_counter() - start) * 1e3
