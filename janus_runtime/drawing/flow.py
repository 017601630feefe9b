"""How JanusFlow draws: seeded noise -> steps of a guided flow, over one prompt -> latents -> pixels.

Letters: n pictures of a call, T tokens of the longest prompt, P places of a padded prompt, D hidden size, c latent channels, s latent size.
"""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.interface import MASKED
from ..bundle.manifest import Schedule
from ..decoding.engine import check_finite
from ..decoding.engines import Engines
from ..decoding.lane import Counts, Lane, Request, as_error, stopping
from ..decoding.stop import RunStop, RunStopped
from ..errors import NumericalError
from ..prompt import Ids, splice
from ..sampling.noise import normal
from ..sampling.sampler import Floats
from .request import DrawSettings, ReferenceFeatures
from .solver import Steps, finish_step, make_steps

Prefix = dict[str, NDArray[Any]]
Tensors = dict[str, NDArray[Any]]

# A step rounds by the length that its prompts are padded to, not by who shares its call: so each prompt is padded to the next
# multiple, and only prompts of one padded length are drawn together. Most prompts fit in one.
_PADDING = 64


@dataclass(eq=False)
class FlowLane(Lane):
    """A picture in flight. Before its first step its `prefix` holds the prompt; from then on `cache` does, [1, 2, …] a tensor."""

    request: Request
    kind: Hashable
    drawer: "FlowDrawer"
    prefix: Prefix
    latents: Floats
    steps: Steps
    times: Tensors
    weights: Tensors
    velocity: Floats | None = None
    """Of its last step."""
    cached_tokens: int = 0
    drawn: list[int] = field(default_factory=list)

    num_rows = 2

    @property
    def length(self) -> int:  # type: ignore[override]
        return int(self.prefix["prefix_mask"].shape[-1])

    def open(self, max_rows: int | None) -> "FlowLanes":
        return FlowLanes(self.drawer)

    @property
    def now(self) -> Tensors:
        """Of the step that comes next, [1, …]."""
        return {name: table[len(self.drawn)][None] for name, table in self.times.items()} | self.weights

    def take(self, next_latents: Floats, velocity: Floats) -> None:
        """What a step gave, [1, …] each."""
        self.latents = finish_step(next_latents, self.steps.back[len(self.drawn)], self.velocity)
        self.velocity = velocity
        self.drawn.append(len(self.drawn))


class FlowDrawer:
    """See `drawer.Drawer`. The prompt goes through the decoder once, with the first step; the other steps see its cache."""

    def __init__(self, engines: Engines, replaced: Sequence[int] = ()) -> None:
        """`replaced`: ids of a prompt whose embeddings give way to a picture's features."""
        assert engines.manifest.flow is not None
        self.engines = engines
        self.replaced = replaced
        self.flow = engines.manifest.flow

    def graphs(self, from_image: bool, previews: bool = False) -> Sequence[str]:
        return ("text_embed", "time_embed", "flow_step", "image_decoder", *(("vision_encoder",) if from_image else ()))

    def num_steps(self, settings: DrawSettings) -> int:
        assert settings.steps is not None
        return settings.steps

    def batch_key(self, ids: Ids) -> int:
        return self.padded_length(len(ids))

    def padded_length(self, length: int) -> int:
        """The next multiple of `_PADDING`, as far as the model has positions: the time and the picture come after the prompt."""
        limit = self.engines.manifest.language_model.max_length - self.engines.manifest.image_output.num_tokens - 1
        return min(-(-length // _PADDING) * _PADDING, limit)

    def encode_reference(self, pixels: Floats) -> ReferenceFeatures:
        return [self.engines.encode_image(pixels)]

    def embed(self, ids: Ids, reference: ReferenceFeatures) -> Prefix:
        embeds = self.engines.embed_text(ids)
        if reference:
            splice(embeds, ids, self.replaced, reference[0])
        return self.prefix([embeds])

    def lane(self, request: Request, prompt: Prefix, seed: int, settings: DrawSettings) -> FlowLane:
        assert settings.solver is not None and settings.shift is not None
        steps = make_steps(settings.solver, Schedule(self.num_steps(settings), settings.shift))
        return FlowLane(
            request=request,
            kind=("flow", prompt["prefix_mask"].shape[-1]),
            drawer=self,
            prefix=prompt,
            latents=normal(seed, (self.flow.latent_channels, self.flow.latent_size, self.flow.latent_size))[None],
            steps=steps,
            times=self.tabulate(steps),
            weights=_weights(prompt, settings.cfg_weight),
        )

    def collect(self, lane: FlowLane) -> Floats:
        latents: Floats = lane.latents[0]
        return latents

    guess = collect

    def decode(self, drawn: Floats) -> Floats:
        pixels: Floats = self.engines["image_decoder"].run({"latents": drawn[None]})["pixels"][0]
        return pixels

    decode_preview = decode  # A JanusFlow has no encoder to calibrate a preview with.

    def prefix(self, prompts: Sequence[NDArray[Any]]) -> Prefix:
        """Embedded prompts [T, D] of n pictures -> what the first step takes of them: two rows each, the unconditional one BOS alone."""
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        spec = self.engines["flow_step"].spec.inputs["prefix_embeds"]
        embeds = np.zeros((len(prompts), 2, self.padded_length(int(lengths.max())), int(spec.shape[-1])), spec.dtype)
        mask = np.full(embeds.shape[:3], MASKED, spec.dtype)
        for index, prompt in enumerate(prompts):
            for row, tokens in ((0, prompt), (1, prompt[:1])):
                embeds[index, row, : len(tokens)], mask[index, row, : len(tokens)] = tokens, 0
        return {"prefix_embeds": embeds, "prefix_mask": mask, "first_position": lengths}

    def begin(self, latents: Floats, now: Tensors, prefix: Prefix, stop: RunStop | None = None) -> tuple[Tensors, Tensors]:
        """The first step: latents [n, c, s, s] and the prompts -> what the step gave, and the cache of the prompts."""
        engine, count = self.engines["flow_step"], len(latents)
        names = engine.spec.cache
        assert names is not None
        # Before the first step the cache is one place that nobody sees.
        _, _, heads, _, head_size = engine.spec.inputs[names.inputs[0]].shape
        cache = {name: np.zeros((count, 2, int(heads), 1, int(head_size)), names.dtype) for name in names.inputs}
        seen = np.full((count, 2, 1), MASKED, prefix["prefix_mask"].dtype)
        outputs = engine.run({"latents": latents, **prefix, "past_mask": seen, **now, **cache}, stop)
        return outputs, {past: outputs.pop(new) for past, new in zip(names.inputs, names.outputs, strict=True)}

    def go_on(self, latents: Floats, now: Tensors, mask: NDArray[Any], cache: Tensors, stop: RunStop | None = None) -> Tensors:
        """A later step, over the cache of the prompts and what `mask` [n, 2, P] shows of it."""
        engine = self.engines["flow_step"]
        count, width = len(latents), int(engine.spec.inputs["prefix_embeds"].shape[-1])
        # The prefix is one token that nobody sees: empty tensors are not every backend's.
        embeds = np.zeros((count, 2, 1, width), engine.spec.inputs["prefix_embeds"].dtype)
        hidden = np.full((count, 2, 1), MASKED, mask.dtype)
        inputs = {"latents": latents, "prefix_embeds": embeds, "prefix_mask": hidden, "past_mask": mask, **now, **cache}
        return engine.run(inputs, stop)

    def tabulate(self, steps: Steps) -> Tensors:
        """What each step takes that depends on its time alone, [S, …]."""
        return self.engines["time_embed"].run({"times": steps.times}) | {"dt": steps.dt}

    def integrate(self, latents: Floats, prefix: Prefix, steps: Steps, cfg_weight: float) -> Iterator[tuple[Floats, Floats]]:
        """Noise [n, c, s, s] -> latents and the guided velocity that led to them, after each step of pictures that go together.

        Raises NumericalError at the first NaN or Inf.
        """
        table, weights = self.tabulate(steps), _weights(prefix, cfg_weight)
        cache: Tensors = {}
        velocity: Floats | None = None
        for step in range(len(steps)):
            now = {name: np.repeat(rows[step][None], len(latents), 0) for name, rows in table.items()} | weights
            if step == 0:
                outputs, cache = self.begin(latents, now, prefix)
            else:
                outputs = self.go_on(latents, now, prefix["prefix_mask"], cache)
            latents = finish_step(outputs["next_latents"], steps.back[step], velocity)
            velocity = outputs["velocity"]
            check_finite("flow_step", latents, f" after {step + 1} steps")
            yield latents, velocity


class FlowLanes:
    """See `Lanes`: pictures whose prompts are padded to one length, each at a step of its own."""

    is_kept = False

    def __init__(self, drawer: FlowDrawer) -> None:
        self.counts = Counts()
        self._drawer = drawer
        self._joining: list[FlowLane] = []
        self._drawing: list[FlowLane] = []
        # Of those that draw, in their order.
        self._cache: Tensors = {}

    @property
    def rows(self) -> int:
        return 2 * len(self._joining + self._drawing)

    @property
    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in list(self._cache.values()))

    @property
    def is_busy(self) -> bool:
        return bool(self._joining or self._drawing)

    def admit(self, lane: FlowLane, memory: int | None) -> bool:
        if memory is not None and self._drawing and self.cache_bytes * (len(self._drawing) + 1) / len(self._drawing) > memory:
            return False
        self._joining.append(lane)
        return True

    def advance(self) -> list[Lane]:
        """One call: the first step of those that join, or a later step of all others. It takes seconds at JanusFlow's size, so it ends at
        once when all who are in it are cancelled; their lanes stay as they were until they are dropped."""
        lanes, begins = (self._joining, True) if self._joining else (self._drawing, False)
        try:
            with stopping({lane.request for lane in lanes}) as stop:
                outputs = self._begin(stop) if begins else self._go_on(stop)
        except RunStopped:
            return []
        except Exception as error:
            failed = list(lanes)
            self._remove(failed)
            for lane in failed:
                lane.request.fail(as_error(error))
            return []
        self.counts.steps += 1
        self.counts.stepped_rows += 2 * len(lanes)
        done: list[Lane] = []
        failed = []
        stepped = list(lanes)
        if begins:
            self._drawing += self._joining
            self._joining = []
        for index, lane in enumerate(stepped):
            lane.take(*(outputs[name][index : index + 1] for name in ("next_latents", "velocity")))
            try:
                check_finite("flow_step", lane.latents, f" after {len(lane.drawn)} steps")
            except NumericalError as error:
                failed.append(lane)
                lane.request.fail(error)
                continue
            if not lane.request.take(lane, lane.latents) or len(lane.drawn) == len(lane.steps):
                done.append(lane)
        self._remove([*failed, *done])
        return done

    def drop(self, request: Request) -> None:
        self._remove([lane for lane in (*self._joining, *self._drawing) if lane.request is request])

    def close(self) -> None:
        self._cache = {}

    def _begin(self, stop: RunStop) -> Tensors:
        lanes = self._joining
        self.counts.prefilled_tokens += sum(int(lane.prefix["first_position"][0]) + 1 for lane in lanes)
        prefix = _stack([lane.prefix for lane in lanes])
        latents, now = np.concatenate([lane.latents for lane in lanes]), _stack([lane.now for lane in lanes])
        outputs, cache = self._drawer.begin(latents, now, prefix, stop)
        self._cache = _stack([self._cache, cache]) if self._drawing else cache
        return outputs

    def _go_on(self, stop: RunStop) -> Tensors:
        lanes = self._drawing
        mask = np.concatenate([lane.prefix["prefix_mask"] for lane in lanes])
        latents, now = np.concatenate([lane.latents for lane in lanes]), _stack([lane.now for lane in lanes])
        return self._drawer.go_on(latents, now, mask, self._cache, stop)

    def _remove(self, gone: Collection[Lane]) -> None:
        """All at once, since each time the cache of those that stay is copied."""
        self._joining = [lane for lane in self._joining if lane not in gone]
        left = [index for index, lane in enumerate(self._drawing) if lane not in gone]
        if len(left) < len(self._drawing):
            self._drawing = [self._drawing[index] for index in left]
            self._cache = {name: tensor[left] for name, tensor in self._cache.items()} if left else {}


def _weights(prefix: Prefix, cfg_weight: float) -> Tensors:
    """What every step takes of n pictures alike, [n] each."""
    first = prefix["first_position"]
    return {"cfg_weight": np.full(len(first), cfg_weight, np.float32), "first_position": first}


def _stack(tensors: Sequence[Mapping[str, NDArray[Any]]]) -> Tensors:
    """[n, …] of each -> of all."""
    return {name: np.concatenate([each[name] for each in tensors]) for name in tensors[0]}
