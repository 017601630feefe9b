"""Where the time goes: every stage of both tasks as a call that can be timed, and how fast memory allows it to be.

Stages are calls, not results, so that a benchmark can take several systems in turn.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..bundle.manifest import Schedule
from ..decoding.engine import Modality
from ..decoding.engines import Engines
from ..decoding.sessions import open_session
from ..drawing.flow import FlowDrawer
from ..drawing.solver import make_steps

PROMPT_TOKENS = 20  # of a drawing prompt, as long as a sentence
QUESTION_TOKENS = 40  # beside the picture, template included
# Of JanusFlow, so that a benchmark seldom begins again.
_MANY_STEPS = 1000


@dataclass(frozen=True)
class Stage:
    """`reads`: bytes of weights and cache that one call cannot do without; 0 where arithmetic and not memory is the limit."""

    name: str
    call: Callable[[], object]
    reads: int = 0


@dataclass(frozen=True)
class Timing:
    """Milliseconds of `runs` calls of a stage."""

    stage: str
    p50: float
    p95: float
    runs: int
    reads: int

    @property
    def gb_per_s(self) -> float:
        """Of the bytes that must be read; 0 where memory is not the limit."""
        return self.reads / self.p50 / 1e6

    @classmethod
    def of(cls, stage: Stage, seconds: Sequence[float]) -> "Timing":
        p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
        return cls(stage.name, float(p50), float(p95), len(seconds), stage.reads)


def stages(engines: Engines, rows: int = 2) -> Iterator[Stage]:
    """The stages of every task that the bundle has. Image stages run `rows` rows: two for each picture under guidance."""
    if "generation" in engines.manifest.tasks:
        yield from _flow_stages(engines, rows) if engines.manifest.flow else _image_stages(engines, rows)
    if "understanding" in engines.manifest.tasks:
        yield from _text_stages(engines)


def _image_stages(engines: Engines, rows: int) -> Iterator[Stage]:
    output = engines.manifest.image_output
    assert output.num_ids is not None
    rng = np.random.default_rng(0)
    session = open_session(engines, "image", rows, PROMPT_TOKENS + output.num_tokens)
    prompt = [engines.embed_text(_ids(engines, PROMPT_TOKENS))] * rows
    drawn = rng.integers(0, output.num_ids, rows, dtype=np.int32)

    def prefill() -> None:
        for row in range(rows):
            session.truncate(row)
        session.prefill(prompt, range(rows), "image")

    def step_at(length: int) -> Callable[[], None]:
        def step() -> None:
            if not session.lengths.all():
                prefill()
            session.lengths[:] = length
            session.step(drawn)

        return step

    yield Stage("image prefill", prefill)
    for name, done in (("early", 0), ("middle", output.num_tokens // 2), ("late", output.num_tokens - 1)):
        length = PROMPT_TOKENS + done
        yield Stage(f"image step, {name}", step_at(length), _step_bytes(engines, "image", rows, length))
    picture = rng.integers(0, output.num_ids, (1, output.num_tokens), dtype=np.int32)
    yield Stage("image decode", lambda: engines["image_decoder"].run({"image_ids": picture}))
    if engines.preview != "image_decoder":
        yield Stage("image preview", lambda: engines[engines.preview].run({"image_ids": picture}))


def _flow_stages(engines: Engines, rows: int) -> Iterator[Stage]:
    """A step is arithmetic, not reading: hundreds of tokens a row."""
    drawer = FlowDrawer(engines)
    flow, pictures = drawer.flow, -(-rows // 2)
    noise = np.random.default_rng(0).standard_normal((pictures, flow.latent_channels, flow.latent_size, flow.latent_size), np.float32)
    prefix = drawer.prefix([engines.embed_text(_ids(engines, PROMPT_TOKENS))] * pictures)

    def first() -> None:
        next(drawer.integrate(noise, prefix, make_steps("euler", flow.solvers.euler), 2.0))

    def later() -> Iterator[None]:
        while True:
            steps = drawer.integrate(noise, prefix, make_steps("euler", Schedule(_MANY_STEPS, 1.0)), 2.0)
            next(steps)
            for _ in steps:
                yield

    steps = later()
    yield Stage("flow step, first", first)
    yield Stage("flow step", lambda: next(steps))
    yield Stage("image decode", lambda: drawer.decode(noise[0]))


def _text_stages(engines: Engines) -> Iterator[Stage]:
    size, tokens = engines.manifest.image_input.size, engines.manifest.image_input.num_tokens
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, size, size)).astype(np.float32)
    length = min(tokens + QUESTION_TOKENS, engines.manifest.language_model.max_length - 1)
    session = open_session(engines, "text", 1, length + 1)
    prompt = [engines.embed_text(_ids(engines, length))]
    said = np.zeros(1, np.int32)

    def prefill() -> None:
        session.truncate(0)
        session.prefill(prompt, [0], "text")

    def step() -> None:
        if not session.lengths.all():
            prefill()
        session.lengths[:] = length
        session.step(said)

    # `Engines.encode_image` would keep what it has encoded once, and time a look-up.
    yield Stage("vision encode", lambda: engines["vision_encoder"].run({"pixels": pixels}))
    yield Stage("text prefill", prefill)
    yield Stage("text step", step, _step_bytes(engines, "text", 1, length))


def _ids(engines: Engines, count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, engines.manifest.language_model.vocab_size, count, dtype=np.int32)


def _step_bytes(engines: Engines, modality: Modality, rows: int, length: int) -> int:
    """Weights of decoder and head, and the keys and values of `length` tokens a row. Embedding reads a few rows only."""
    model = engines.manifest.language_model
    weights = engines.language_model.spec.weight_bytes + engines[f"{modality}_head"].spec.weight_bytes
    assert engines.language_model.spec.cache is not None
    number = np.dtype(engines.language_model.spec.cache.dtype)
    token = 2 * model.num_layers * model.num_heads * model.head_size * number.itemsize
    return weights + rows * length * token


def time_stages(all_stages: Sequence[Stage], runs: int, seconds: float) -> list[Timing]:
    """Calls every stage in turn, `runs` times or until its share of `seconds` is over, after one call that does not count.

    In turn, so that a machine that slows down slows all stages alike.
    """
    spent: list[list[float]] = [[] for _ in all_stages]
    for stage in all_stages:
        stage.call()
    for _ in range(runs):
        for stage, times in zip(all_stages, spent, strict=True):
            if not times or sum(times) < seconds / len(all_stages):
                start = time.perf_counter()
                stage.call()
                times.append(time.perf_counter() - start)
    return [Timing.of(stage, times) for stage, times in zip(all_stages, spent, strict=True)]


def read_bandwidth(size: int = 1 << 30) -> float:
    """GB/s at which all cores together read memory, best of five passes over `size` bytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = np.array_split(np.ones(size // 8, np.int64), cores)
    best = 0.0
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(np.max, parts))
            best = max(best, size / (time.perf_counter() - start) / 1e9)
    return best
