"""What users of transformers run today, as two commands: one picture from text, one answer about a picture.

    python -m bench.cpu.transformers_command generate CHECKPOINT PROMPT --dtype bf16 --out fox.png
    python -m bench.cpu.transformers_command describe CHECKPOINT photo.jpg --dtype bf16 --max-tokens 32

Prints one JSON object with timings in ms, as `janus-rt … --json` does. CHECKPOINT is a folder in the HF layout.
"""

import json
import os
import time
from pathlib import Path

import click
import numpy as np

# Everything comes from the folder; from_pretrained would also ask the hub what else there is.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import (  # noqa: E402
    BatchFeature,
    GenerationConfig,
    JanusForConditionalGeneration,
    JanusImageProcessorPil,
    JanusProcessor,
    PreTrainedTokenizerFast,
)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CFG_WEIGHT = 5.0
_SPECIAL = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>", "pad_token": "<｜▁pad▁｜>"}
_IMAGE = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}


class Command:
    """Model and processor, loaded; `timings` says how long that took."""

    def __init__(self, checkpoint: Path, dtype: str) -> None:
        start = time.perf_counter()
        self.model = JanusForConditionalGeneration.from_pretrained(checkpoint, dtype=DTYPES[dtype]).eval()
        vision = self.model.config.vision_config
        self.processor = open_processor(checkpoint, vision.image_size, vision.num_image_tokens)
        self.timings = {"load": (time.perf_counter() - start) * 1e3}

    @torch.inference_mode()
    def generate(self, prompt: str) -> Image.Image:
        """One picture at guidance 5, drawn at temperature 1."""
        inputs = image_inputs(self.processor, prompt)
        config = self._config(do_sample=True, guidance_scale=CFG_WEIGHT)
        ids = self._timed("generate", lambda: self.model.generate(**inputs, generation_mode="image", generation_config=config))
        pixels = self._timed("decode", lambda: self.model.decode_image_tokens(ids))[0]  # [size, size, 3] in -1 … 1
        # The processor's own postprocess takes the height for the channels where torchvision is missing.
        return Image.fromarray(((pixels.float().numpy() + 1) / 2 * 255).clip(0, 255).astype(np.uint8))

    @torch.inference_mode()
    def describe(self, image: Image.Image, question: str, max_tokens: int) -> tuple[str, int]:
        """The greedy answer and how many tokens it has."""
        inputs = text_inputs(self.processor, question, image).to(self.model.dtype)
        config = self._config(do_sample=False, max_new_tokens=max_tokens)
        ids = self._timed("generate", lambda: self.model.generate(**inputs, generation_config=config))[0, inputs["input_ids"].shape[1] :]
        return self.processor.decode(ids, skip_special_tokens=True), len(ids)

    def _config(self, **settings) -> GenerationConfig:
        """The checkpoints that this project makes have no generation_config.json."""
        tokenizer = self.processor.tokenizer
        special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        return GenerationConfig(**special, generation_kwargs={"boi_token_id": tokenizer.boi_token_id}, **settings)

    def _timed(self, name: str, call):
        start = time.perf_counter()
        result = call()
        self.timings[name] = (time.perf_counter() - start) * 1e3
        return result


def open_processor(checkpoint: Path, image_size: int, num_image_tokens: int) -> JanusProcessor:
    """transformers' processor from tokenizer.json and preprocessor_config.json alone."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"), **_SPECIAL, extra_special_tokens=_IMAGE)
    pixels = JanusImageProcessorPil.from_pretrained(checkpoint, size={"height": image_size, "width": image_size})
    return JanusProcessor(pixels, tokenizer, use_default_system_prompt=True, num_image_tokens=num_image_tokens)


def image_inputs(processor: JanusProcessor, prompt: str) -> BatchFeature:
    """Janus-Pro's prompt for drawing, [1, T]."""
    return _with_bos(processor, text=f"<|User|>: {prompt}\n\n<|Assistant|>:", generation_mode="image")


def text_inputs(processor: JanusProcessor, question: str, image: Image.Image) -> BatchFeature:
    """Janus-Pro's prompt for a question about one picture, [1, T], and its pixels, [1, 3, size, size]."""
    text = f"<|User|>: {_IMAGE['image_token']}\n{question}\n\n<|Assistant|>:"
    return _with_bos(processor, text=text, images=image, generation_mode="text")


def _with_bos(processor: JanusProcessor, **arguments) -> BatchFeature:
    """A tokenizer.json of this project does not add BOS by itself."""
    inputs = processor(**arguments, add_special_tokens=False, return_tensors="pt")
    bos = torch.tensor([[processor.tokenizer.bos_token_id]])
    inputs["input_ids"] = torch.cat([bos, inputs["input_ids"]], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


@click.group()
def main() -> None:
    """transformers' Janus on one prompt or one picture."""


_DTYPE = click.option("--dtype", type=click.Choice(list(DTYPES)), required=True)
_CHECKPOINT = click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))


@main.command()
@_CHECKPOINT
@click.argument("prompt")
@_DTYPE
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def generate(checkpoint: Path, prompt: str, dtype: str, out: Path) -> None:
    """Draw PROMPT into a PNG file."""
    command = Command(checkpoint, dtype)
    command.generate(prompt).save(out)
    click.echo(json.dumps({"file": str(out), "timings": command.timings}))


@main.command()
@_CHECKPOINT
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_DTYPE
@click.option("--ask", default="Describe this image.", show_default=True)
@click.option("--max-tokens", default=32, show_default=True)
def describe(checkpoint: Path, image: Path, dtype: str, ask: str, max_tokens: int) -> None:
    """Answer a question about IMAGE."""
    command = Command(checkpoint, dtype)
    with Image.open(image) as photo:
        text, tokens = command.describe(photo.convert("RGB"), ask, max_tokens)
    click.echo(json.dumps({"text": text, "tokens": tokens, "timings": command.timings}))


if __name__ == "__main__":
    main()
