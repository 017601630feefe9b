"""`python -m nano`: from nothing to janus-nano's checkpoint, in stages that go on where they were stopped."""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import JanusForConditionalGeneration

from . import train_decoder, train_tower, train_vq
from .model import GRID, MAX_LENGTH, build
from .progress import Stage
from .scenes import SIDE, render, sample
from .tokenizer import VOCAB_SIZE, Text, train_tokenizer

LICENCE = Path(__file__).parents[1] / "LICENSE"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m nano", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, in the HF janus layout")
    parser.add_argument("--work", type=Path, required=True, help="folder for what each stage has reached")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", type=int, default=1, metavar="N", help="an N-th of all steps, to try the path (default: 1)")
    options = parser.parse_args()
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    options.work.mkdir(parents=True, exist_ok=True)

    train_tokenizer(options.work / "text")
    text = Text(options.work / "text", GRID**2)
    model = build(VOCAB_SIZE, text.placeholder, options.seed)
    vq, tower = model.model.vqmodel, model.model.vision_model

    stage = Stage("vq", options.work, options.seed)
    if not stage.done(vq):
        train_vq.train(vq, stage, max(1, train_vq.STEPS // options.quick))
    vq.eval()
    rng = np.random.default_rng([options.seed, 1])
    held_out = [render(sample(rng, held_out=True)) for _ in range(200)]
    print(f"vq: {train_vq.psnr(vq, held_out):.2f} dB on {len(held_out)} scenes held out", file=sys.stderr)

    stage = Stage("tower", options.work, options.seed)
    teller = train_tower.Teller(tower)
    if not stage.done(teller):
        train_tower.train(teller, stage, max(1, train_tower.STEPS // options.quick))

    stage = Stage("decoder", options.work, options.seed)
    if not stage.done(model):
        train_decoder.train(model, text, stage, max(1, train_decoder.STEPS // options.quick))
    save(model, options.work / "text", options.out)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.out}: {count / 1e6:.2f} million weights in fp16", file=sys.stderr)


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
