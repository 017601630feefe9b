"""How large do activations get, layer by layer? Beyond 65504 they do not fit fp16: look before choosing it for real weights.

    python -m bench.quality.activation_maxima CHECKPOINT BUNDLE --image PICTURE --out maxima.json

Runs the fp32 torch reference, one matrix in memory at a time, over a drawing (the prompt, then the ids that the VQ encoder
gives the picture) and over a question about the picture. BUNDLE, of any precision, says how prompts are made. Exit code 1
where something comes to more than a quarter of fp16's range. Scores inside attention are not watched.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.machine import write_report
from janus_export import modules
from janus_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from janus_export.checkpoint.sizes import JanusConfig
from janus_export.modules.attention import causal_attention
from janus_export.modules.language_model import DecoderLayer, final_norm
from janus_export.modules.layers import LayerNorm, Linear, RMSNorm, stream_weights
from janus_export.precision import ALWAYS_FP32
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.manifest import TOKENIZER
from janus_runtime.console.errors import report_errors
from janus_runtime.errors import JanusError
from janus_runtime.pictures.image import open_image, preprocess
from janus_runtime.prompt import Prompter, splice

_LIMIT = float(np.finfo(np.float16).max)
_WARN = _LIMIT / 4  # other prompts than these may go further

Maxima = dict[str, float]


class Watched:
    """Runs the checkpoint's modules and keeps the largest magnitude of what goes into products and norms and out of each part."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config, self.tensors = checkpoint.config, checkpoint.tensors
        self.maxima: Maxima = {}

    def run(self, name: str, kind: Callable[[JanusConfig, torch.dtype], nn.Module], *arguments: Any) -> Tensor:
        """`kind` is the module's class, or what builds it on the meta device."""
        with torch.device("meta"):
            module = kind(self.config, torch.float32)
        if name not in ALWAYS_FP32:
            for part_name, part in module.named_modules(prefix=name):
                part.register_forward_hook(partial(self._see, part_name))
        result: Tensor = stream_weights(module, self.tensors)(*arguments)
        return result

    def decode(self, name: str, embeds: Tensor) -> Tensor:
        """embeds [1, T, D] -> the last token's hidden state [1, D]."""
        text = self.config.text
        attend = partial(causal_attention, text)
        for index in range(text.num_layers):
            embeds = self.run(f"{name}.layers.{index}", lambda config, f, index=index: DecoderLayer(text, index, f), embeds, attend)
        return self.run(f"{name}.norm", lambda config, f: final_norm(text, f), embeds[:, -1])

    def _see(self, name: str, part: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        seen = {name: result, **({f"{name} input": arguments[0]} if isinstance(part, Linear | LayerNorm | RMSNorm) else {})}
        for place, value in seen.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                self.maxima[place] = max(self.maxima.get(place, 0.0), float(value.abs().max()))


@torch.inference_mode()
def activation_maxima(checkpoint: Checkpoint, bundle: Bundle, picture: Image.Image, prompt: str, question: str) -> Maxima:
    """Part -> the largest magnitude of its output; `… input` is what goes into a product or a norm."""
    watched, prompter, manifest = Watched(checkpoint), Prompter(bundle.manifest, bundle.path / TOKENIZER), bundle.manifest

    def embed(ids: np.ndarray) -> Tensor:
        return watched.run("text_embed", modules.TextEmbed, torch.from_numpy(ids)[None])

    def pixels(size: int) -> Tensor:
        return torch.from_numpy(preprocess(picture, replace(manifest.image_input, size=size)))[None]

    asked = prompter.question(question, 1)
    embeds = embed(asked)
    features = watched.run("vision_encoder", modules.VisionEncoder, pixels(manifest.image_input.size))
    splice(embeds[0].numpy(), asked, [manifest.tokens.image_placeholder.id], features.numpy())
    watched.run("text_head", modules.TextHead, watched.decode("language_model", embeds))

    image_ids = watched.run("image_encoder", modules.ImageEncoder, pixels(manifest.image_output.size))
    drawn = watched.run("image_embed", modules.ImageEmbed, image_ids)
    ids = prompter.image(prompt)
    for row in (ids, prompter.blank(ids)):
        hidden = watched.decode("language_model", torch.cat([embed(row), drawn], 1))
        watched.run("image_head", modules.ImageHead, hidden)
    return watched.maxima


@click.command()
@click.argument("source", metavar="CHECKPOINT")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False))
@click.option("--image", required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--prompt", default="a red fox in the snow", show_default=True)
@click.option("--question", default="Describe this image.", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="All maxima as JSON.")
@click.option("--debug", is_flag=True)
def main(source: str, bundle: str, image: str, prompt: str, question: str, out: Path | None, debug: bool) -> None:
    """Say how large the activations of CHECKPOINT get. Exit code 1 where fp16 is not safe."""
    with report_errors(debug):
        maxima = activation_maxima(open_checkpoint(source), Bundle.open(bundle), open_image(image), prompt, question)
        if out:
            write_report(out, {"limit": _LIMIT, "prompt": prompt, "question": question, "maxima": maxima})
        largest = sorted(maxima.items(), key=lambda item: -item[1])[:10]
        for name, value in largest:
            click.echo(f"{value:12.1f}{value / _LIMIT:8.1%} of fp16's range  {name}")
        if largest[0][1] > _WARN:
            raise JanusError(f"{largest[0][0]} comes to {largest[0][1]:.0f}, fp16 ends at {_LIMIT:.0f}; prefer fp32, int8 or int4")


if __name__ == "__main__":
    main()
