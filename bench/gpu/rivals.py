"""What torch users have on a GPU, beside `bench.gpu.latency`: the same picture drawn by transformers, in three ways.

    python -m bench.gpu.rivals --model janus-pro-1b --rows 2 --out bench/results/gpu-1b-2-rivals.json

`eager` is the published loop over a cache that grows. `compiled` is a static cache under torch.compile with CUDA graphs
(mode reduce-overhead), `captured` the same static step captured by hand: these are what a careful user would run. Each draws 576
ids under guidance, feeds them back on the GPU and never waits for a step. Weights are random and made on the GPU; none is loaded.
Needs torch and transformers, and nothing of ours but sizes.
"""

import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from transformers import DynamicCache, JanusConfig, JanusForConditionalGeneration, StaticCache

from bench.gpu.latency import windows
from bench.machine import write_report
from testing.published_layouts import MODELS, hf_config

_PROMPT_TOKENS = 20
_CFG_WEIGHT = 5.0
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_WARM_UP = 3

Step = Callable[[torch.Tensor], torch.Tensor]
"""embeds [R, 1, D] -> those of the drawn ids. The cache goes on by a token."""


class Clock:
    """Marks in the order of the device's work; nothing waits until they are read."""

    def __init__(self, device: str) -> None:
        self._cuda, self._marks = device == "cuda", []  # type: tuple[bool, list[Any]]

    def mark(self) -> None:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of every mark since the first."""
        first = self._marks[0]
        if not self._cuda:
            return [mark - first for mark in self._marks]
        torch.cuda.synchronize()
        return [first.elapsed_time(mark) / 1e3 for mark in self._marks]


class Rival:
    """A Janus of random weights on `device`, and the loop around it. Letters: R rows, n pictures, D hidden size."""

    def __init__(self, model: str, dtype: torch.dtype, device: str, rows: int) -> None:
        config = JanusConfig(**hf_config(MODELS[model]))
        with torch.device("meta"):
            self.janus = JanusForConditionalGeneration(config).to(dtype).eval()
        self.janus.to_empty(device=device)
        with torch.no_grad():
            for parameter in self.janus.parameters():
                parameter.normal_(0, 0.02)
            # Angles and places, which are made in __init__ and got lost with it; what they hold does not matter for time.
            for buffer in self.janus.buffers():
                buffer.zero_()
        self.config, self.device, self.rows = config, device, rows
        self.steps = config.vq_config.num_patches**2
        text = config.text_config
        self.prompt = torch.randn(rows, _PROMPT_TOKENS, text.hidden_size, dtype=dtype, device=device)
        self.length = _PROMPT_TOKENS + self.steps

    def draw(self, embeds: torch.Tensor, cache: Any) -> torch.Tensor:
        """Any number of tokens [R, S, D] -> the embeddings [R, 1, D] of the ids drawn after them."""
        hidden = self.janus.model.language_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
        cond, uncond = self.janus.model.generation_head(hidden[:, -1]).float().view(-1, 2, self.config.vq_config.num_embeddings).unbind(1)
        scores = torch.softmax(uncond + _CFG_WEIGHT * (cond - uncond), -1)
        # A multinomial draw that waits for nothing.
        ids = (scores / torch.empty_like(scores).exponential_()).argmax(-1)
        return self.janus.prepare_embeddings_for_image_generation(ids.repeat_interleave(2)[:, None])

    def eager(self) -> tuple[Callable[[], torch.Tensor], Step]:
        """-> how a picture begins, and its step."""
        cache: list[DynamicCache] = []

        def begin() -> torch.Tensor:
            cache[:] = [DynamicCache(config=self.config.text_config)]
            return self.draw(self.prompt, cache[0])

        return begin, lambda embeds: self.draw(embeds, cache[0])

    def static(self) -> tuple[Callable[[], torch.Tensor], Step]:
        cache = StaticCache(config=self.config.text_config, max_cache_len=self.length)

        def begin() -> torch.Tensor:
            # Not `reset`, which also clears what masks hide anyway.
            for layer in cache.layers:
                layer.cumulative_length.zero_()
            return self.draw(self.prompt, cache)

        return begin, lambda embeds: self.draw(embeds, cache)

    def compiled(self, backend: str) -> tuple[Callable[[], torch.Tensor], Step]:
        begin, step = self.static()
        mode = {"mode": "reduce-overhead"} if backend == "inductor" else {}
        fast = torch.compile(step, backend=backend, fullgraph=True, **mode)
        # What a CUDA graph returns is overwritten by its next replay.
        return begin, lambda embeds: fast(embeds).clone()

    def captured(self) -> tuple[Callable[[], torch.Tensor], Step]:
        begin, step = self.static()
        embeds = begin().clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                step(embeds)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            embeds.copy_(step(embeds))

        def replay(given: torch.Tensor) -> torch.Tensor:
            if given is not embeds:
                embeds.copy_(given)
            graph.replay()
            return embeds

        return begin, replay

    def decode(self) -> torch.Tensor:
        """The VQ decoder, one picture."""
        pixels: torch.Tensor = self.janus.decode_image_tokens(torch.zeros(1, self.steps, dtype=torch.long, device=self.device))
        return pixels

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def timed(rival: Rival, begin: Callable[[], torch.Tensor], step: Step, repeats: int) -> dict[str, Any]:
    """Prefill, steps by their place in the picture, and a picture from prompt to pixels, in ms; medians over `repeats`."""
    runs: list[dict[str, float]] = []
    for _ in range(1 + repeats):
        rival.wait()
        start = time.perf_counter()
        embeds, clock = begin(), Clock(rival.device)
        rival.wait()
        prefilled = time.perf_counter()
        clock.mark()
        for _ in range(rival.steps - 1):
            embeds = step(embeds)
            clock.mark()
        marks = clock.seconds()
        drawn = time.perf_counter()
        rival.decode()
        rival.wait()
        done = time.perf_counter()
        row = {"prefill": prefilled - start, "decode": done - drawn, "picture": done - start}
        for name, (first, last) in windows(rival.steps).items():
            row[f"step {name}"] = (marks[last] - marks[first]) / (last - first)
        runs.append(row)
    # The first compiles and warms up.
    return {name: sorted(run[name] for run in runs[1:])[repeats // 2] * 1e3 for name in runs[0]}


def kernels(rival: Rival, begin: Callable[[], torch.Tensor], step: Step) -> int | None:
    """How many kernels a step of eager torch runs; None where there is no GPU."""
    if rival.device != "cuda":
        return None
    embeds = step(begin())
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step(embeds)
        rival.wait()
    return sum(1 for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA)


def systems(rival: Rival, ways: tuple[str, ...], compiler: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    made = {"eager": rival.eager, "static": rival.static, "compiled": lambda: rival.compiled(compiler), "captured": rival.captured}
    return ((way, made[way]) for way in ways)


@click.command()
@click.option("--model", type=click.Choice(list(MODELS)), required=True)
@click.option("--rows", default=2, show_default=True, type=click.IntRange(2))
@click.option("--dtype", type=click.Choice(list(_DTYPES)), default="bf16", show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--compiler", default="inductor", show_default=True, help="torch.compile's backend; eager only traces.")
@click.option("--way", "ways", multiple=True, default=["eager", "compiled", "captured"], show_default=True,
              type=click.Choice(["eager", "static", "compiled", "captured"]))  # fmt: skip
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def main(model: str, rows: int, dtype: str, device: str, compiler: str, ways: tuple[str, ...], repeats: int, out: Path) -> None:
    """Draw MODEL's pictures in torch. The report is written after each way, so that one that takes too long loses no other."""
    cuda = device == "cuda"
    rival = Rival(model, _DTYPES[dtype], device, rows)
    report: dict[str, Any] = {
        "question": "the same picture in torch",
        "model": model, "precision": dtype, "random_weights": True, "rows": rows,
        "device": {"name": torch.cuda.get_device_name() if cuda else "CPU"},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
        "results": {},
    }  # fmt: skip
    with torch.no_grad():
        for way, prepare in systems(rival, ways, compiler):
            try:
                begin, step = prepare()
                row = timed(rival, begin, step, repeats)
                if way == "eager":
                    row["kernels"] = kernels(rival, begin, step)
            # A way that this torch cannot go is a result, too.
            except Exception as error:
                row = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            if cuda:
                row["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            report["results"][way] = row
            write_report(out, report)
            click.echo(f"{way:9}{row}")
    if all("error" in row for row in report["results"].values()):
        raise click.ClickException("no way of torch's ran; see above")


if __name__ == "__main__":
    main()
