"""`python -m nano`: from nothing to janus-nano's checkpoint, in stages that go on where they were stopped."""

import json
import shutil
import sys
from pathlib import Path

import click
import numpy as np
import torch
from transformers import JanusForConditionalGeneration

from janus_runtime.errors import JanusError
from janus_runtime.reporting import reported

from . import train_decoder, train_tower, train_vq
from .model import GRID, MAX_LENGTH, build
from .progress import Stage
from .scenes import SIDE, render, sample
from .tokenizer import VOCAB_SIZE, Text, train_tokenizer

LICENCE = Path(__file__).parents[1] / "LICENSE"
_WRITTEN = {
    "LICENSE", "config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the checkpoint, HF janus layout.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for what each stage has reached.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--quick", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="An N-th of all steps, to try the path.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(out: Path, work: Path, seed: int, quick: int, debug: bool) -> None:
    """From nothing to janus-nano's checkpoint. Stopped, it goes on where it was."""
    with reported(debug):
        train(out, work, seed, quick)


def train(out: Path, work: Path, seed: int, quick: int) -> None:
    """Every stage that has not ended yet, then the checkpoint. Raises JanusError before it begins if `out` is not ours to replace."""
    strangers = sorted({path.name for path in out.iterdir()} - _WRITTEN) if out.exists() else []
    if strangers:
        raise JanusError(f"{out} holds what is no part of janus-nano ({', '.join(strangers[:5])}); choose another --out")
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    work.mkdir(parents=True, exist_ok=True)

    train_tokenizer(work / "text")
    text = Text(work / "text", GRID**2)
    model = build(VOCAB_SIZE, text.placeholder, seed)
    vq, tower = model.model.vqmodel, model.model.vision_model

    stage = Stage("vq", work, seed)
    if not stage.done(vq):
        train_vq.train(vq, stage, max(1, train_vq.STEPS // quick))
    vq.eval()
    rng = np.random.default_rng([seed, 1])
    held_out = [render(sample(rng, held_out=True)) for _ in range(200)]
    print(f"vq: {train_vq.psnr(vq, held_out):.2f} dB on {len(held_out)} scenes held out", file=sys.stderr)

    stage = Stage("tower", work, seed)
    teller = train_tower.Teller(tower)
    if not stage.done(teller):
        train_tower.train(teller, stage, max(1, train_tower.STEPS // quick))

    stage = Stage("decoder", work, seed)
    if not stage.done(model):
        train_decoder.train(model, text, stage, max(1, train_decoder.STEPS // quick))
    save(model, work / "text", out)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{out}: {count / 1e6:.2f} million weights in fp16", file=sys.stderr)


def save(model: JanusForConditionalGeneration, text: Path, out: Path) -> None:
    """Writes the checkpoint anew: fp16 weights, config, preprocessing, tokenizer, licence. `out` is whole or absent."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.half().save_pretrained(part)
    for path in text.iterdir():
        shutil.copyfile(path, part / path.name)
    (part / "preprocessor_config.json").write_text(json.dumps({
        "background_color": [127, 127, 127], "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "image_size": SIDE, "min_size": 14, "rescale_factor": 1 / 255,
    }, indent=1))  # fmt: skip
    (part / "tokenizer_config.json").write_text(json.dumps({"model_max_length": MAX_LENGTH}))
    shutil.copyfile(LICENCE, part / "LICENSE")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


if __name__ == "__main__":
    main()
