"""nano-flow's checkpoint in PyTorch, behind as much of janus_runtime.Janus as scoring asks for.

    python -m bench.quality.nano_torch nano/nano-flow --draws 200 --questions 200

Scores what was trained before any bundle is made of it; `bench.quality.nano_quality` scores bundles of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import torch
from PIL import Image

from bench.machine import where
from bench.quality.nano_quality import ask, scores
from bench.quality.nano_quality import draw as draw_held_out
from janus_runtime.console.commands import FiniteFloat
from nano import train_vq
from nano.model import GRID
from nano.tokenizer import FLOW_TEMPLATE, Text
from testing.janus_flow import JanusFlow, draw, pixels, vae


class TorchFlow:
    def __init__(self, folder: Path, steps: int = 30) -> None:
        self.model, self.vae = JanusFlow.load(folder), vae(folder / "vae")
        self.text, self.steps = Text(folder, GRID**2, FLOW_TEMPLATE), steps

    def generate(self, prompts: list[str], *, seed: int, cfg_weight: float | None, batch_size: int) -> list[SimpleNamespace]:
        """One picture a prompt, one after the other. Noise is the prompt's seed's, which is no bundle's noise of that seed."""
        return [self._draw(prompt, seed + index, cfg_weight) for index, prompt in enumerate(prompts)]

    def _draw(self, prompt: str, seed: int, cfg_weight: float | None) -> SimpleNamespace:
        flow = self.vae.config
        noise = torch.randn(1, flow.latent_channels, 2 * GRID, 2 * GRID, generator=torch.Generator().manual_seed(seed))
        ids = torch.tensor(self.text.drawing(prompt))
        weight = 2.0 if cfg_weight is None else cfg_weight
        (drawn,) = pixels(self.vae, draw(self.model, ids, noise, pad_id=self.text.pad, steps=self.steps, cfg_weight=weight))
        return SimpleNamespace(image=Image.fromarray(((drawn.clamp(-1, 1) + 1) / 2 * 255).permute(1, 2, 0).byte().numpy()))

    @torch.inference_mode()
    def describe(self, image: Image.Image, question: str, *, max_tokens: int) -> Iterator[str]:
        """The likeliest answer, in one piece."""
        spoken, said = self.text.conversation([(question, "")])
        ids = torch.tensor([spoken[: said.index(True)]])
        decoder = self.model.language_model
        embeds = decoder.get_input_embeddings()(ids)
        features = self.model.see(train_vq.pixels([np.asarray(image)]))
        embeds = embeds.masked_scatter(torch.isin(ids, torch.tensor([self.text.begin, self.text.placeholder]))[..., None], features)
        answer = decoder.generate(
            inputs_embeds=embeds, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False,
            eos_token_id=self.text.eos, pad_token_id=self.text.pad,
        )  # fmt: skip
        yield self.text.decode(answer[0].tolist())


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--draws", default=200, show_default=True, type=click.IntRange(1))
@click.option("--questions", "count", default=200, show_default=True, type=click.IntRange(1))
@click.option("--cfg-weight", type=FiniteFloat(), default=2.0, show_default=True)
@click.option("--steps", default=30, show_default=True, type=click.IntRange(1))
def main(checkpoint: Path, draws: int, count: int, cfg_weight: float, steps: int) -> None:
    """Score CHECKPOINT as bench.quality.nano_quality scores a bundle; one JSON object on stdout."""

    def tell(text: str) -> None:
        click.echo(text, err=True)

    flow = TorchFlow(checkpoint, steps)
    outcomes = draw_held_out(flow, draws, cfg_weight, tell) | ask(flow, count, tell)
    about = {"draws": draws, "questions": count, "cfg_weight": cfg_weight, "steps": steps}
    click.echo(json.dumps({**scores(outcomes), **about, **where()}))


if __name__ == "__main__":
    main()
