"""How Janus and Janus-Pro draw: one id after another under guidance. Letters: n pictures in a batch, T prompt length, D hidden size."""

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..decoding.engines import Engines
from ..decoding.session import stack_rows
from ..decoding.sessions import open_session
from ..errors import PromptError
from ..prompt import Ids, Prompter, splice
from ..sampling.guidance import FromImage, Guidance, Pairs, pair
from ..sampling.noise import Noise
from ..sampling.sampler import Floats
from .request import DrawSettings, Job, ReferenceFeatures


class TokenDrawer:
    """See `request.Drawer`."""

    def __init__(self, engines: Engines, prompter: Prompter) -> None:
        self.engines = engines
        self.prompter = prompter
        self._num_tokens = engines.manifest.image_output.num_tokens

    def prepare(self, from_image: bool) -> float:
        return self.engines.prepare("image", "text_embed", "image_decoder", *(("vision_encoder", "image_encoder") if from_image else ()))

    def num_steps(self, settings: DrawSettings) -> int:
        return self._num_tokens

    def batch_key(self, ids: Ids) -> int:
        return 0  # Attention ends at each row's own length: prompts of any lengths share a batch.

    def encode_reference(self, pixels: Floats) -> ReferenceFeatures:
        """Its visual features, and the embeddings of the ids that would draw it."""
        image_ids = self.engines["image_encoder"].run({"pixels": pixels[None]})["image_ids"]
        return [self.engines.encode_image(pixels), self.engines.embed_ids("image", image_ids)[0]]

    def stream(
        self, batch: Sequence[Job], ids: Sequence[Ids], settings: DrawSettings, reference: ReferenceFeatures
    ) -> Generator[Ids, None, None]:
        """Yields the ids [n] of each of the `num_tokens` steps of one batch."""
        num_ids = self.engines.manifest.image_output.num_ids
        assert num_ids is not None
        noise = Noise([job.seed for job in batch], num_ids)
        guidance: Guidance = Pairs(settings.cfg_weight)
        if settings.image_weight is not None:
            guidance = FromImage(settings.cfg_weight, settings.image_weight)
        each = guidance.rows
        prompts = sorted({job.prompt for job in batch})
        longest = max(len(ids[p]) for p in prompts)
        length = longest + self._num_tokens
        with open_session(self.engines, "image", rows=each * len(batch), max_length=length) as session:
            if session.max_length < length:
                raise PromptError(
                    f"a prompt of {longest} tokens and its picture of {self._num_tokens} were asked for, this backend holds "
                    f"{session.max_length} together; use a shorter prompt, or build more with 'janus-export engines DIR --lengths {length}'"
                )
            # Rows of a prompt are computed once, in the places of its first picture; its other pictures start from copies.
            first = {prompt: next(i for i, job in enumerate(batch) if job.prompt == prompt) for prompt in prompts}
            embeds = [row for prompt in prompts for row in self._rows(ids[prompt], reference)]
            sources = [each * first[prompt] + row for prompt in prompts for row in range(each)]
            logits = dict(zip(sources, session.prefill(embeds, sources, "image"), strict=True))
            source = [each * first[job.prompt] + row for job in batch for row in range(each)]
            for row in range(each * len(batch)):
                if source[row] != row:
                    session.copy(source[row], row)
            start = stack_rows([logits[row] for row in source])
            yield from session.draw(start, self._num_tokens, settings.sampler, noise, guidance)

    def _rows(self, ids: Ids, reference: ReferenceFeatures) -> list[NDArray[Any]]:
        """The embedded rows [T, D] of one prompt that guidance works on: see `Pairs` and `FromImage`."""
        cond, uncond = self.engines.embed_text(ids), self.engines.embed_text(self.prompter.blank(ids))
        if not reference:
            return pair([cond], [uncond])
        features, drawn = reference
        splice(cond, ids, self.prompter.replaced, features)
        both = cond.copy()
        splice(both, ids, [self.prompter.tokens.pad.id], drawn)
        return [both, cond, uncond]

    def collect(self, steps: list[Ids]) -> Ids:
        return np.stack(steps, axis=1)

    def decode(self, drawn: Ids) -> Floats:
        pixels: Floats = self.engines["image_decoder"].run({"image_ids": drawn[None]})["pixels"][0]
        return pixels
