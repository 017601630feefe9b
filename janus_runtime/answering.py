"""Answering: a question about pictures, or about none, as one lane of the scheduler. Letters: T prompt ids, D hidden size."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decoding.engines import Engines, digest
from .decoding.handle import Post
from .decoding.lane import Prefix, Request, TokenLane
from .decoding.sessions import open_token_lanes
from .events import Said, Stop, Usage
from .prompt import Ids, Prompter, splice
from .sampling.guidance import Plain
from .sampling.sampler import Sampler


class Place:
    """Where a conversation lives: its row, once it has one, and how many tokens of it are said. `kind` tells its lanes from others'."""

    def __init__(self, engines: Engines, max_length: int) -> None:
        self.kind: Any = "tokens" if engines.backend.limits is None else ("conversation", id(self))
        self.max_length = max_length
        self.rows: list[int] = []
        self.base = 0


class Answering(Request):
    """`ids` [T] with a place for every picture's features, and the pixels [3, size, size] of those pictures. Draws at most `limit` ids."""

    def __init__(
        self,
        engines: Engines,
        prompter: Prompter,
        ids: Ids,
        pixels: Sequence[NDArray[np.float32]],
        limit: int,
        sampler: Sampler,
        seed: int,
        *,
        retained_bytes: int,
        place: Place | None = None,
        post: Post | None = None,
        deadline_s: float | None = None,
    ) -> None:
        super().__init__(post, deadline_s)
        self._engines, self._prompter = engines, prompter
        self._ids, self._pixels, self._limit = ids, pixels, limit
        self._sampler, self._seed = sampler, seed
        self._retained_bytes, self._place = retained_bytes, place
        self._graphs = (*engines.graphs_of("text"), *(("vision_encoder",) if pixels else ()))
        self._lane: TokenLane | None = None
        # What the lane is prefilled with, once it is there, and until the lane has it.
        self._prompt: tuple[Prefix, NDArray[Any]] | None = None
        self._text = prompter.text_stream()
        self._unsaid: list[int] = []
        self._stop: Stop = "length"
        self._prepared = self._first = 0.0
        self.timings: dict[str, float] = {}
        self._cached_tokens = self._num_said = 0

    @property
    def needs_encoder(self) -> bool:
        return bool(self._pixels) or not self._engines.are_open(*self._graphs)

    @property
    def usage(self) -> Usage:
        num_image = len(self._pixels) * self._prompter.manifest.image_input.num_tokens
        return Usage(len(self._ids) - num_image, num_image, self._cached_tokens, self._num_said)

    def prepare(self) -> None:
        start = time.perf_counter()
        # Pictures are encoded while other graphs open: the decoder's weights keep one core busy for seconds.
        wait_until_open, features = self._engines.open_beside(*self._graphs), []
        for pixels in self._pixels:  # one at a time: activations are large
            if self.is_over or self.handle.cancelled:
                return
            features.append(self._engines.encode_image(pixels))
        encoded = time.perf_counter()
        wait_until_open()
        self.timings |= {"load": (time.perf_counter() - encoded) * 1e3, "encode": (encoded - start) * 1e3}
        embeds = self._engines.embed_text(self._ids)
        if features:
            splice(embeds, self._ids, self._prompter.replaced, np.stack(features))
        places = self._prompter.picture_places(self._ids) if self._pixels else []
        prefix = Prefix(self._ids, tuple(zip(places, map(digest, self._pixels), strict=True)))
        self._prompt, self._prepared = (prefix, embeds), time.perf_counter()

    def next_lane(self) -> TokenLane | None:
        if self._prompt is None:
            return None
        place, longest = self._place, len(self._ids) + self._limit - 1
        self._lane = TokenLane(
            request=self,
            kind=place.kind if place else "tokens" if self._engines.backend.limits is None else "text",
            open_lanes=partial(open_token_lanes, self._engines, "text", 1, place.max_length if place else longest, self._retained_bytes),
            modality="text",
            prompts=[self._prompt],
            seed=self._seed,
            sampler=self._sampler,
            guidance=Plain(),
            limit=self._limit,
            rows=place.rows if place else [],
            base=place.base if place else 0,
            pinned=place is not None,
        )
        self._prompt = None
        return self._lane

    def start(self) -> None:
        super().start()
        if self._place is not None and self._lane is not None:
            self._place.rows = self._lane.rows

    def take(self, lane: TokenLane, drawn: int) -> bool:
        now = time.perf_counter()
        if len(lane.drawn) == 1:
            self._first, self._cached_tokens = now, lane.cached_tokens
            self.timings |= {"prefill": (now - self._prepared) * 1e3}
        self.timings["steps"] = (now - self._first) * 1e3
        if drawn == self._prompter.tokens.eos.id:
            self._stop = "eos"
            return False
        self._unsaid.append(drawn)
        self._num_said += 1
        if text := self._text.feed(drawn):
            self._say(text)
        return True

    def finish(self, lane: TokenLane) -> Callable[[], None] | None:
        if (rest := self._text.end()) or self._unsaid:
            self._say(rest)
        self._lane = None  # It holds the embedded prompt.
        self.complete(self._stop)
        return None

    def _say(self, text: str) -> None:
        self.report(Said(text, tuple(self._unsaid)))
        self._unsaid = []
