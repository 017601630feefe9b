"""JanusFlow's steps beside the plain PyTorch loop that it was published as: time, share of the machine's arithmetic, error.

    python -m bench.cpu.flow_speed --checkpoint DIR --bundle FP32 --bundle INT8 --out bench/results/flow.json

One picture, two rows. Every system takes step k from the same latents before any takes step k + 1, the fp32 loop's, so that an
error is one step's and times are of the same minutes. The loop computes the whole prompt in every step, as published.
"""

import resource
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import click
import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

import janus_runtime
from bench.bundles import open_manifests
from bench.machine import where, write_report
from janus_runtime.bundle.manifest import Schedule
from janus_runtime.checks.verify import relative_difference
from janus_runtime.console.commands import FiniteFloat
from janus_runtime.console.errors import report_errors
from janus_runtime.drawing.flow import FlowDrawer
from janus_runtime.drawing.solver import make_steps
from janus_runtime.errors import JanusError
from janus_runtime.sampling.noise import normal
from janus_runtime.sampling.sampler import Floats
from testing.janus_flow import JanusFlow

# Products that are large enough to be bound by arithmetic and shaped like the decoder's.
_SHAPE = (1154, 2048, 5632)


class Loop:
    """The published loop's step in plain PyTorch."""

    name = "PyTorch fp32"

    def __init__(self, folder: Path, prompt: Floats, cfg_weight: float) -> None:
        self.model, self.cfg_weight = JanusFlow.load(folder), cfg_weight
        # BOS and pads, whose contents do not matter since they are masked.
        self.embeds = torch.from_numpy(prompt)[None].repeat(2, 1, 1)
        self.mask = torch.ones(2, len(prompt), dtype=torch.long)
        self.mask[1, 1:] = 0

    @torch.inference_mode()
    def step(self, latents: Floats, moment: float) -> Floats:
        rows = torch.from_numpy(latents).repeat(2, 1, 1, 1)
        cond, uncond = self.model.velocity(self.embeds, self.mask, rows, torch.full((2,), moment)).chunk(2)
        return (uncond + self.cfg_weight * (cond - uncond)).numpy()


class Ours:
    """A bundle's step; the prompt is in the cache, where the first call put it."""

    def __init__(self, janus: janus_runtime.Janus, prompt: Floats, cfg_weight: float, steps: int) -> None:
        self.name = f"janus-rt {janus.manifest.precision}"
        drawer = FlowDrawer(janus._engines)
        self.latents = np.zeros((1, drawer.flow.latent_channels, drawer.flow.latent_size, drawer.flow.latent_size), np.float32)
        # The loop hands its latents on; a step of ours starts from what lies there.
        self.steps = drawer.integrate(self.latents, drawer.prefix([prompt]), make_steps("euler", Schedule(steps, 1.0)), cfg_weight)

    def step(self, latents: Floats, moment: float) -> Floats:
        self.latents[...] = latents
        self.latents, velocity = next(self.steps)
        return velocity


def sgemm_gflops() -> float:
    """fp32 products, the best of twenty."""
    rows, inner, columns = _SHAPE
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    return _gflops(lambda: left @ right)


def int8_gflops() -> float:
    """Products of 8-bit integers to 32-bit ones in ONNX Runtime, the best of twenty."""
    rows, inner, columns = _SHAPE
    rng = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(rng.integers(-128, 128, (inner, columns), np.int8), "weight")
    node = helper.make_node("MatMulInteger", ["x", "weight"], ["y"])
    graph = helper.make_graph(
        [node], "product", [helper.make_tensor_value_info("x", TensorProto.UINT8, [rows, inner])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [rows, columns])], [weight],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = {"x": rng.integers(0, 256, (rows, inner), np.uint8)}
    return _gflops(lambda: session.run(None, x))


def _gflops(call) -> float:
    best = np.inf
    for _ in range(20):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return 2 * float(np.prod(_SHAPE)) / best / 1e9


def step_gflop(manifest, mlp_size: int, prompt: int) -> float:
    """Of a step's arithmetic the decoder's: its matrices over two rows of time and latents, and attention to what each may see."""
    model, tokens = manifest.language_model, manifest.image_output.num_tokens + 1
    matrices = model.num_layers * model.hidden_size * (4 * model.hidden_size + 3 * mlp_size)
    seen = tokens * prompt + tokens * (tokens + 1) // 2
    return 2 * (2 * matrices * tokens + 4 * model.num_layers * model.hidden_size * seen) / 1e9


@click.command()
@click.option("--checkpoint", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="JanusFlow's layout.")
@click.option("--bundle", "bundles", multiple=True, required=True, metavar="DIR", help="May be given several times.")
@click.option("--tokens", default=32, show_default=True, type=click.IntRange(2), help="Of the prompt.")
@click.option("--count", default=5, show_default=True, type=click.IntRange(2), help="Steps of each; the first does not count.")
@click.option("--cfg-weight", type=FiniteFloat(), default=2.0, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--debug", is_flag=True)
def main(checkpoint: Path, bundles: tuple[str, ...], tokens: int, count: int, cfg_weight: float, out: Path | None, debug: bool) -> None:
    """Time steps of BUNDLEs and of the loop, in turn."""
    with report_errors(debug), ExitStack() as stack:
        manifests = open_manifests(bundles)
        if any(manifest.flow is None for manifest in manifests):
            raise JanusError("a bundle of JanusFlow is needed; export one with 'janus-export checkpoint SRC --out DIR'")
        opened = [stack.enter_context(janus_runtime.load(bundle, "cpu")) for bundle in bundles]
        flow, steps = manifests[0].flow, manifests[0].flow.solvers.euler.steps
        ids = np.random.default_rng(0).integers(0, manifests[0].language_model.vocab_size, tokens, np.int32)
        ids[0] = manifests[0].tokens.bos.id
        # Of the first bundle, so that all systems have one prompt.
        prompt = opened[0]._engines.embed_text(ids)
        loop = Loop(checkpoint, prompt, cfg_weight)
        systems = [loop, *(Ours(janus, prompt, cfg_weight, steps) for janus in opened)]
        rates = {"fp32": sgemm_gflops(), "int8": int8_gflops()}
        schedule = make_steps("euler", Schedule(steps, 1.0))
        latents = normal(0, (flow.latent_channels, flow.latent_size, flow.latent_size))[None]
        spent: dict[str, list[float]] = {system.name: [] for system in systems}
        errors: dict[str, list[float]] = {system.name: [] for system in systems[1:]}
        for step in range(min(count, steps)):
            for system in systems:
                start = time.perf_counter()
                velocity = system.step(latents, float(schedule.times[step]))
                spent[system.name].append(time.perf_counter() - start)
                if system is loop:
                    expected = velocity
                else:
                    errors[system.name].append(relative_difference(velocity, expected))
                click.echo(f"{system.name:16} step {step}: {spent[system.name][-1]:7.2f} s", err=True)
            latents = latents + schedule.dt[step] * expected
        mlp_size = loop.model.language_model.config.intermediate_size
        gflop = step_gflop(manifests[0], mlp_size, tokens)
        medians = {name: median(times[1:]) for name, times in spent.items()}
        report = {
            "question": "JanusFlow's steps beside the plain PyTorch loop, in turn",
            "model": manifests[0].source.name,
            "random_weights": manifests[0].random_weights,
            **where(),
            "threads": torch.get_num_threads(),
            "prompt_tokens": tokens,
            "decoder_gflop_per_step": gflop,
            "gflop_per_s": rates,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
            "step_s": spent,
            "median_s": medians,
            "largest_velocity_error": {name: max(values) for name, values in errors.items()},
        }
        for name, seconds in medians.items():
            rate = rates["int8" if name.endswith(("int8", "int4")) else "fp32"]
            error = f", velocity off by {max(errors[name]):.1e}" if name in errors else ""
            ratio = medians[loop.name] / seconds
            click.echo(f"{name:16}{seconds:8.2f} s a step, {ratio:.2f}x, {gflop / seconds / rate:.0%} of {rate:.0f} GFLOP/s{error}")
        if out:
            write_report(out, report)


if __name__ == "__main__":
    main()
