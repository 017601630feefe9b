"""`python -m nano`: from nothing to a checkpoint of janus-nano or nano-flow, in stages that go on where they were stopped."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import nn
from transformers import JanusForConditionalGeneration

from janus_export.atomic_folder import aside
from janus_export.checkpoint.sizes import JanusConfig
from janus_runtime.console.errors import report_errors
from janus_runtime.errors import JanusError
from nano import flow, train_decoder, train_flow, train_tower, train_vae, train_vq
from nano.model import GRID, MAX_LENGTH, build
from nano.progress import Stage
from nano.scenes import SIDE, render, sample
from nano.tokenizer import FLOW_TEMPLATE, VOCAB_SIZE, Text, train_tokenizer
from testing.flow_layout import flow_config
from testing.janus_flow import JanusFlow

LICENCE = Path(__file__).parents[1] / "LICENSE"
_WRITTEN = {
    "LICENSE", "config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json", "vae",
}  # fmt: skip


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the checkpoint.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for what each stage has reached.")
@click.option("--flow", "as_flow", is_flag=True, help="Train nano-flow, which draws as JanusFlow does, instead of janus-nano.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--quick", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="An N-th of all steps, to try the path.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(out: Path, work: Path, as_flow: bool, seed: int, quick: int, debug: bool) -> None:
    """From nothing to a checkpoint, HF janus layout or JanusFlow's. Stopped, it goes on where it was."""
    with report_errors(debug):
        strangers = sorted({path.name for path in out.iterdir()} - _WRITTEN) if out.exists() else []
        if strangers:
            name = "nano-flow" if as_flow else "janus-nano"
            raise JanusError(f"{out} holds what is no part of {name} ({', '.join(strangers[:5])}); choose another --out")
        torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
        work.mkdir(parents=True, exist_ok=True)
        model = (train_nano_flow if as_flow else train_janus_nano)(out, work, seed, quick)
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{out}: {count / 1e6:.2f} million weights in fp16", file=sys.stderr)


def train_janus_nano(out: Path, work: Path, seed: int, quick: int) -> JanusForConditionalGeneration:
    """Every stage that has not ended yet, then the checkpoint."""
    train_tokenizer(work / "text")
    text = Text(work / "text", GRID**2)
    model = build(VOCAB_SIZE, text.placeholder, seed)
    vq, tower = model.model.vqmodel, model.model.vision_model

    stage = Stage("vq", work, seed)
    if not stage.done(vq):
        train_vq.train(vq, stage, max(1, train_vq.STEPS // quick))
    vq.eval()
    unseen = held_out(seed)
    print(f"vq: {train_vq.psnr(train_vq.redrawn(vq, unseen), unseen):.2f} dB on {len(unseen)} scenes held out", file=sys.stderr)

    see(tower, model.config.vision_config.hidden_size, work, seed, quick)

    stage = Stage("decoder", work, seed)
    if not stage.done(model):
        train_decoder.train(model, text, stage, max(1, train_decoder.STEPS // quick))
    save(model, work / "text", out)
    return model


def train_nano_flow(out: Path, work: Path, seed: int, quick: int) -> JanusFlow:
    """Every stage that has not ended yet, then the checkpoint."""
    train_tokenizer(work / "text", FLOW_TEMPLATE)
    text = Text(work / "text", GRID**2, FLOW_TEMPLATE)
    vae = flow.build_vae(seed)

    stage = Stage("vae", work, seed)
    if not stage.done(vae):
        train_vae.train(vae, stage, max(1, train_vae.STEPS // quick))
    train_vae.set_scale(vae, seed)
    stage = Stage("vae-decoder", work, seed)
    if not stage.done(vae):
        train_vae.train_decoder(vae, stage, max(1, train_vae.DECODER_STEPS // quick))
    vae.eval().requires_grad_(False)
    unseen = held_out(seed)
    with torch.no_grad():
        redrawn = train_vae.decoded(vae, train_vae.to_latents(vae, unseen))
    print(f"vae: {train_vq.psnr(redrawn, unseen):.2f} dB on {len(unseen)} scenes held out", file=sys.stderr)

    config = flow.config(VOCAB_SIZE, vae.config.scaling_factor)
    model = flow.build(config, seed)
    see(model.vision_und_enc_model["vision_tower"], config.vision.hidden_size, work, seed, quick)

    stage = Stage("flow", work, seed)
    if not stage.done(model):
        train_flow.train(model, vae, text, stage, max(1, train_flow.STEPS // quick), max(1, train_flow.SCENES // quick))
    save_flow(model, config, vae, work / "text", out)
    return model


def held_out(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng([seed, 1])
    return [render(sample(rng, held_out=True)) for _ in range(200)]


def see(tower: nn.Module, width: int, work: Path, seed: int, quick: int) -> None:
    """The tower's stage, if it has not ended yet."""
    stage = Stage("tower", work, seed)
    teller = train_tower.Teller(tower, width)
    if not stage.done(teller):
        train_tower.train(teller, stage, max(1, train_tower.STEPS // quick))


def save(model: JanusForConditionalGeneration, text: Path, out: Path) -> None:
    """Writes the checkpoint anew, HF janus layout."""
    with checkpoint(text, out) as part:
        model.half().save_pretrained(part)


def save_flow(model: JanusFlow, config: JanusConfig, vae: AutoencoderKL, text: Path, out: Path) -> None:
    """Writes the checkpoint anew, JanusFlow's layout, with its VAE in a folder inside."""
    with checkpoint(text, out) as part:
        save_file(model.half().state_dict(), part / "model.safetensors", {"format": "pt"})
        raw = flow_config(config)
        del raw["random_weights"]
        (part / "config.json").write_text(json.dumps(raw, indent=1))
        vae.half().save_pretrained(part / "vae")


@contextmanager
def checkpoint(text: Path, out: Path) -> Iterator[Path]:
    """A folder for fp16 weights and config, which gets preprocessing, tokenizer and licence. `out` is whole or absent."""
    with aside(out, "training") as part:
        yield part
        for path in text.iterdir():
            shutil.copyfile(path, part / path.name)
        (part / "preprocessor_config.json").write_text(json.dumps({
            "background_color": [127, 127, 127], "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
            "image_size": SIDE, "min_size": 14, "rescale_factor": 1 / 255,
        }, indent=1))  # fmt: skip
        (part / "tokenizer_config.json").write_text(json.dumps({"model_max_length": MAX_LENGTH}))
        shutil.copyfile(LICENCE, part / "LICENSE")


if __name__ == "__main__":
    main()
