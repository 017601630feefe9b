"""How JanusFlow draws: seeded noise -> Euler steps of a guided flow, over one prompt -> latents -> pixels.

Letters: n pictures in a batch, T tokens of the longest prompt, D hidden size, c latent channels, s latent size.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.interface import MASKED
from ..decoding.engine import check_finite
from ..decoding.engines import Engines
from ..prompt import Ids, splice
from ..sampling.noise import normal
from ..sampling.sampler import Floats
from .request import DrawSettings, Job, ReferenceFeatures

Prefix = dict[str, NDArray[Any]]

# A step rounds by the length that its prompts are padded to, not by who shares its batch: so each prompt is padded to the next
# multiple, and only prompts of one padded length are drawn together. Most prompts fit in one.
_PADDING = 64


class FlowDrawer:
    """See `request.Drawer`. The prompt goes through the decoder once, with the first step; the other steps see its cache."""

    def __init__(self, engines: Engines, replaced: Sequence[int] = ()) -> None:
        """`replaced`: ids of a prompt whose embeddings give way to a picture's features."""
        assert engines.manifest.flow is not None
        self.engines = engines
        self.replaced = replaced
        self.flow = engines.manifest.flow

    def prepare(self, from_image: bool) -> float:
        encoder = ("vision_encoder",) if from_image else ()
        return self.engines.open("text_embed", "time_embed", "flow_step", "image_decoder", *encoder)

    def num_steps(self, settings: DrawSettings) -> int:
        assert settings.steps is not None
        return settings.steps

    def batch_key(self, ids: Ids) -> int:
        return self._padded_length(len(ids))

    def _padded_length(self, length: int) -> int:
        """The next multiple of `_PADDING`, as far as the model has positions: the time and the picture come after the prompt."""
        limit = self.engines.manifest.language_model.max_length - self.engines.manifest.image_output.num_tokens - 1
        return min(-(-length // _PADDING) * _PADDING, limit)

    def encode_reference(self, pixels: Floats) -> ReferenceFeatures:
        return [self.engines.encode_image(pixels)]

    def stream(
        self, batch: Sequence[Job], ids: Sequence[Ids], settings: DrawSettings, reference: ReferenceFeatures
    ) -> Generator[Floats, None, None]:
        """Yields the latents [n, c, s, s] after each step of one batch."""
        shape = (self.flow.latent_channels, self.flow.latent_size, self.flow.latent_size)
        noise = np.stack([normal(job.seed, shape) for job in batch])
        prompts = {job.prompt: self.engines.embed_text(ids[job.prompt]) for job in batch}
        for prompt, embeds in prompts.items() if reference else ():
            splice(embeds, ids[prompt], self.replaced, reference[0])
        prefix = self.prefix([prompts[job.prompt] for job in batch])
        for latents, _ in self.integrate(noise, prefix, self.num_steps(settings), settings.cfg_weight):
            yield latents

    def collect(self, steps: list[Floats]) -> Floats:
        return steps[-1]

    def decode(self, drawn: Floats) -> Floats:
        pixels: Floats = self.engines["image_decoder"].run({"latents": drawn[None]})["pixels"][0]
        return pixels

    def prefix(self, prompts: Sequence[NDArray[Any]]) -> Prefix:
        """Embedded prompts [T, D] of n pictures -> what the first step takes of them: two rows each, the unconditional one BOS alone."""
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        spec = self.engines["flow_step"].spec.inputs["prefix_embeds"]
        embeds = np.zeros((len(prompts), 2, self._padded_length(int(lengths.max())), int(spec.shape[-1])), spec.dtype)
        mask = np.full(embeds.shape[:3], MASKED, spec.dtype)
        for index, prompt in enumerate(prompts):
            for row, tokens in ((0, prompt), (1, prompt[:1])):
                embeds[index, row, : len(tokens)], mask[index, row, : len(tokens)] = tokens, 0
        return {"prefix_embeds": embeds, "prefix_mask": mask, "first_position": lengths}

    def integrate(self, latents: Floats, prefix: Prefix, steps: int, cfg_weight: float) -> Iterator[tuple[Floats, Floats]]:
        """Noise [n, c, s, s] -> latents and the guided velocity that led to them, after each step.

        Raises NumericalError at the first NaN or Inf.
        """
        engine, count = self.engines["flow_step"], len(latents)
        names = engine.spec.cache
        assert names is not None
        times, dt = time_steps(steps)
        table = self.engines["time_embed"].run({"times": times})
        each = {"cfg_weight": np.full(count, cfg_weight, np.float32), "dt": np.full(count, dt, np.float32)}
        each["first_position"] = prefix["first_position"]
        embeds, mask = prefix["prefix_embeds"], prefix["prefix_mask"]
        # Before the first step the cache is one place that nobody sees.
        _, _, heads, _, head_size = engine.spec.inputs[names.inputs[0]].shape
        cache = {name: np.zeros((count, 2, int(heads), 1, int(head_size)), names.dtype) for name in names.inputs}
        seen = np.full((count, 2, 1), MASKED, mask.dtype)
        for step in range(steps):
            now = {name: np.tile(rows[step], (count, 1)) for name, rows in table.items()}
            inputs = {"latents": latents, "prefix_embeds": embeds, "prefix_mask": mask, "past_mask": seen, **now, **each, **cache}
            outputs = engine.run(inputs)
            latents, velocity = outputs["next_latents"], outputs["velocity"]
            check_finite("flow_step", latents, f" after {step + 1} steps")
            yield latents, velocity
            if step == 0:
                cache = {past: outputs[new] for past, new in zip(names.inputs, names.outputs, strict=True)}
                # From now on the prefix is one token that nobody sees: empty tensors are not every backend's.
                seen, embeds, mask = mask, np.zeros_like(embeds[:, :, :1]), np.full_like(mask[:, :, :1], MASKED)


def time_steps(steps: int) -> tuple[Floats, np.float32]:
    """Times [steps] of 0 to 1000 where the steps begin, and their length, 1 / steps."""
    times: Floats = (1000 * np.arange(steps) / steps).astype(np.float32)
    return times, np.float32(1 / steps)
