"""What to draw and how: settings, the request that holds them, the pictures that come of it.

Letters: n pictures in a batch, T prompt length, D hidden size.
"""

import hashlib
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..bundle.manifest import MAX_STEPS, Manifest, Solver
from ..sampling.guidance import IMAGE_WEIGHT, MAX_CFG_WEIGHT
from ..sampling.sampler import Floats, Sampler

# As JanusFlow was published.
SOLVER: Solver = "euler"

OnStep = Callable[[int, int], None]
ReferenceFeatures = Sequence[NDArray[Any]]
"""What a drawer makes of a reference image, [tokens, D] each; empty where there is none."""


@dataclass(frozen=True)
class DrawSettings:
    """How pictures are drawn. Made and checked once by `make`, carried whole to each picture and into its PNG.

    None is what this model or this request has no use for: JanusFlow has `solver`, `steps` and `shift` in place of `temperature`, `top_k`
    and `top_p`. `shift` is that of the solver's times, which the bundle says.
    `image_sha256` is that of the pixels [3, size, size] that the model gets of a reference image.
    """

    cfg_weight: float
    temperature: float | None
    top_k: int | None
    top_p: float | None
    solver: Solver | None
    steps: int | None
    shift: float | None
    image_sha256: str | None
    image_weight: float | None

    @classmethod
    def make(
        cls,
        manifest: Manifest,
        pixels: Floats | None = None,
        *,
        cfg_weight: float | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        solver: Solver | None = None,
        steps: int | None = None,
        image_weight: float | None = None,
    ) -> "DrawSettings":
        """Raises ValueError on settings out of range, or that this model has no use for."""
        defaults = manifest.defaults
        sampler = Sampler(defaults.temperature if temperature is None else temperature, top_k, top_p)
        cfg_weight = defaults.cfg_weight if cfg_weight is None else cfg_weight
        if not abs(cfg_weight) <= MAX_CFG_WEIGHT:
            raise ValueError(f"cfg_weight is {cfg_weight}; expected -{MAX_CFG_WEIGHT:g} to {MAX_CFG_WEIGHT:g}")
        if manifest.flow:
            if sampler != Sampler():
                raise ValueError("this model draws by a flow and has no ids to choose from; leave temperature, top_k and top_p out")
            solver = SOLVER if solver is None else solver
            if solver not in get_args(Solver):
                raise ValueError(f"solver is {solver!r}; expected one of {', '.join(get_args(Solver))}")
            steps = manifest.flow.schedule(solver).steps if steps is None else operator.index(steps)
            if not 1 <= steps <= MAX_STEPS:
                raise ValueError(f"steps is {steps}; expected 1 to {MAX_STEPS}")
        elif steps is not None or solver is not None:
            known = "a solver is JanusFlow's: leave it out" if steps is None else "steps are JanusFlow's: leave them out"
            raise ValueError(f"this model draws {manifest.image_output.num_tokens} ids, one a step; {known}")
        return cls(
            cfg_weight=cfg_weight,
            temperature=None if manifest.flow else sampler.temperature,
            top_k=None if manifest.flow else sampler.top_k,
            top_p=None if manifest.flow else sampler.top_p,
            solver=solver,
            steps=steps,
            shift=manifest.flow.schedule(solver).shift if manifest.flow and solver else None,
            image_sha256=None if pixels is None else hashlib.sha256(pixels.tobytes()).hexdigest(),
            image_weight=_image_weight(manifest, image_weight, given=pixels is not None),
        )

    @property
    def sampler(self) -> Sampler:
        """Of models that draw ids."""
        assert self.temperature is not None and self.top_k is not None and self.top_p is not None
        return Sampler(self.temperature, self.top_k, self.top_p)


def _image_weight(manifest: Manifest, asked: float | None, given: bool) -> float | None:
    """None where nothing is weighed: without a reference image, and for JanusFlow, which has no ids of one."""
    if asked is None:
        return IMAGE_WEIGHT if given and not manifest.flow else None
    if not given:
        raise ValueError("image_weight is how much a picture counts, and there is none; give image too, or leave it out")
    if manifest.flow:
        raise ValueError("this model only sees a picture and has no ids of it to weigh that against; leave image_weight out")
    if not 0 <= asked <= MAX_CFG_WEIGHT:
        raise ValueError(f"image_weight is {asked}; expected 0 to {MAX_CFG_WEIGHT:g}")
    return asked


@dataclass(frozen=True, eq=False)
class DrawRequest:
    """`n` pictures of each prompt, `batch_size` at once; `pixels` [3, size, size] of a reference image. See `Janus.stream`."""

    prompts: Sequence[str]
    n: int
    seed: int
    batch_size: int
    settings: DrawSettings
    pixels: Floats | None = None


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """One picture: `image_ids` int32 [num_tokens], or `latents` fp32 [c, s, s] of JanusFlow.

    `timings` in ms: `load` (opening graphs, once), `encode` (of a reference image, once), `prefill` (from when it has rows to its first
    step's end), `steps` and `step` (one of them), `decode`.
    """

    image: Image.Image
    image_ids: NDArray[np.int32] | None
    latents: NDArray[np.float32] | None
    prompt: str
    seed: int
    settings: DrawSettings
    timings: dict[str, float]
