"""How Janus and Janus-Pro draw: one id after another under guidance. Letters: T prompt length, D hidden size."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..decoding.engines import Engines, digest
from ..decoding.lane import Prefix, Request, TokenLane
from ..decoding.session import Embeds
from ..decoding.sessions import open_token_lanes
from ..errors import PromptError
from ..prompt import Ids, Prompter, splice
from ..sampling.guidance import FromImage, Pairs, pair
from ..sampling.sampler import Floats
from .request import DrawSettings, ReferenceFeatures

Rows = list[tuple[Prefix, Embeds]]
"""The rows of one prompt that guidance works on: see `Pairs` and `FromImage`."""


class TokenDrawer:
    """See `drawer.Drawer`."""

    def __init__(self, engines: Engines, prompter: Prompter, retained_bytes: int) -> None:
        self.engines = engines
        self.prompter = prompter
        self._retained_bytes = retained_bytes
        self._num_tokens = engines.manifest.image_output.num_tokens

    def graphs(self, from_image: bool, previews: bool = False) -> Sequence[str]:
        encoders = ("vision_encoder", "image_encoder") if from_image else ()
        preview = (self.engines.preview,) if previews else ()
        return (*self.engines.graphs_of("image"), "text_embed", "image_decoder", *preview, *encoders)

    def num_steps(self, settings: DrawSettings) -> int:
        return self._num_tokens

    def batch_key(self, ids: Ids) -> int:
        return 0  # Attention ends at each row's own length: prompts of any lengths share a batch.

    def encode_reference(self, pixels: Floats) -> ReferenceFeatures:
        """Its visual features, and the embeddings of the ids that would draw it."""
        image_ids = self.engines["image_encoder"].run({"pixels": pixels[None]})["image_ids"]
        return [self.engines.encode_image(pixels), self.engines.embed_ids("image", image_ids)[0]]

    def embed(self, ids: Ids, reference: ReferenceFeatures) -> Rows:
        blank = self.prompter.blank(ids)
        cond, uncond = self.engines.embed_text(ids), self.engines.embed_text(blank)
        if not reference:
            return pair([(Prefix(ids), cond)], [(Prefix(blank), uncond)])
        features, drawn = reference
        seen, pads = self.prompter.replaced, [self.prompter.tokens.pad.id]
        splice(cond, ids, seen, features)
        both = cond.copy()
        splice(both, ids, pads, drawn)
        pictures = [(int(np.isin(ids, replaced).argmax()), digest(each)) for replaced, each in ((seen, features), (pads, drawn))]
        return [(Prefix(ids, tuple(pictures)), both), (Prefix(ids, tuple(pictures[:1])), cond), (Prefix(blank), uncond)]

    def lane(self, request: Request, prompt: Rows, seed: int, settings: DrawSettings) -> TokenLane:
        length, limits = len(prompt[0][0].ids) + self._num_tokens, self.engines.backend.limits
        if limits is not None and length > limits.lengths[-1]:
            raise PromptError(
                f"a prompt of {length - self._num_tokens} tokens and its picture of {self._num_tokens} were asked for, this backend holds "
                f"{limits.lengths[-1]} together; use a shorter prompt, or build more with 'janus-export engines DIR --lengths {length}'"
            )
        weight = settings.image_weight
        return TokenLane(
            request=request,
            kind="tokens" if limits is None else "image",
            open_lanes=partial(open_token_lanes, self.engines, "image", request.most_rows, length - 1, self._retained_bytes),
            modality="image",
            prompts=prompt,
            seed=seed,
            sampler=settings.sampler,
            guidance=Pairs(settings.cfg_weight) if weight is None else FromImage(settings.cfg_weight, weight),
            limit=self._num_tokens,
        )

    def collect(self, lane: TokenLane) -> Ids:
        return np.array(lane.drawn, np.int32)

    def guess(self, lane: TokenLane) -> Ids:
        """Ids that are not drawn yet are those of the row above."""
        width = math.isqrt(self._num_tokens)
        ids = list(lane.drawn)
        while len(ids) < self._num_tokens:
            ids.append(ids[max(len(ids) - width, 0)] if len(ids) >= width else ids[-1])
        return np.array(ids, np.int32)

    def decode(self, drawn: NDArray[Any]) -> Floats:
        return self._decode("image_decoder", drawn)

    def decode_preview(self, guess: NDArray[Any]) -> Floats:
        return self._decode(self.engines.preview, guess)

    def _decode(self, graph: str, image_ids: NDArray[Any]) -> Floats:
        pixels: Floats = self.engines[graph].run({"image_ids": image_ids[None]})["pixels"][0]
        return pixels
