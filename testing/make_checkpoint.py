"""Writes a checkpoint of a family member's true shapes with random weights, in either published layout.

For measuring and testing where real weights cannot be had. Tensors are made and written one at a time; each is a
function of its HF name and the seed alone, so both layouts hold the same weights. Variances follow fan-in, so that
activations stay in fp16's range. JanusFlow has one layout, and its VAE in the folder `vae` beside.

    python -m testing.make_checkpoint --model janus-pro-1b --layout original --format bin --out DIR --tokenizer DIR
"""

import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import ml_dtypes
import numpy as np
from tokenizers import Tokenizer

from janus_export.checkpoint.sizes import JanusConfig, VaeConfig
from janus_runtime.console.commands import FiniteFloat
from testing.flow_layout import FLOW_MODELS, flow_config, flow_tensors, vae_config, vae_tensors
from testing.published_layouts import MODELS, hf_config, hf_tensors, original_config, original_name
from testing.tiny_tokenizer import write_tokenizer

ALL_MODELS = {**MODELS, **FLOW_MODELS}
# Janus-1.3B's template has no role tokens; it is told from Pro by its tokenizer. So are JanusFlow's, and of the small models one's.
_ROLE_TOKENS = {"janus-1.3b": False, "small": False, **dict.fromkeys(FLOW_MODELS, False)}
_DTYPES = {"bf16": np.dtype(ml_dtypes.bfloat16), "fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}
_TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_SAFETENSORS_NAMES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}


@dataclass(frozen=True)
class Entry:
    """A tensor to be stored: its name, its shape, and the HF tensors that it joins along the first axis."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[tuple[str, tuple[int, ...]], ...]

    def make(self, config: JanusConfig, seed: int) -> np.ndarray:
        return np.concatenate([random_tensor(name, shape, config, seed) for name, shape in self.parts]).reshape(self.shape)


def random_tensor(name: str, shape: tuple[int, ...], config: JanusConfig, seed: int) -> np.ndarray:
    """fp32 values of the tensor with this HF name."""
    values = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape, dtype=np.float32)
    mean, deviation = spread(name, shape, config)
    values *= np.float32(deviation)
    values += np.float32(mean)
    return values


def spread(name: str, shape: tuple[int, ...], config: JanusConfig) -> tuple[float, float]:
    """Mean and standard deviation of the tensor with this HF name."""
    if "norm" in name and name.endswith("weight"):
        return 1.0, 0.1
    if name.endswith("bias"):
        return 0.0, 0.05
    table = "embed" in name and "patch" not in name and "time_embed" not in name and "mapper" not in name
    if table or "quantize" in name:
        return 0.0, 0.1 if "position" in name else 1.0
    gain = 1.0
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        gain = (2 * config.text.num_layers) ** -0.5
    elif name.endswith(("projection_layer.weight", "mlp.fc2.weight")):
        gain = (2 * config.vision.num_layers) ** -0.5
    elif name.startswith("lm_head") or "generation_head.vision_head" in name:
        gain = 3.0  # Spread logits: with flat ones the largest would be a coin toss.
    elif "decoder.conv_out" in name:
        gain = 0.4  # Pixels mostly within -1 … 1.
    return 0.0, gain * float(np.prod(shape[1:])) ** -0.5


def hf_entries(config: JanusConfig) -> list[Entry]:
    return [Entry(name, shape, ((name, shape),)) for name, shape in hf_tensors(config).items()]


def original_entries(config: JanusConfig) -> list[Entry]:
    """The same tensors under original names, qkv fused, with the dead tensors that real checkpoints carry."""
    width = config.vision.hidden_size
    if config.flow:
        entries, tower = _fused(flow_tensors(config)), "vision_und_enc_model"
    else:
        entries, tower = _fused({original_name(name): (shape, name) for name, shape in hf_tensors(config).items()}), "vision_model"
        entries.append(Entry("gen_vision_model.quantize.codebook_used", (65536,), (("codebook_used", (65536,)),)))
    for name, shape in (("latent", (1, 1, width)), ("q.weight", (width, width))):
        entries.append(Entry(f"{tower}.vision_tower.attn_pool.{name}", shape, ((f"attn_pool.{name}", shape),)))
    return entries


def _fused(tensors: dict[str, tuple[tuple[int, ...], str]]) -> list[Entry]:
    """Original name -> shape and HF name, as entries: the vision tower's qkv in one, its positions with a leading 1."""
    entries = []
    for name, (shape, hf) in tensors.items():
        tower = hf.startswith("model.vision_model")
        if tower and ".self_attn.q_proj." in hf:
            parts = tuple((hf.replace("q_proj", part), shape) for part in ("q_proj", "k_proj", "v_proj"))
            entries.append(Entry(name.replace("self_attn.q_proj", "attn.qkv"), (3 * shape[0], *shape[1:]), parts))
        elif hf.endswith("position_embedding.weight"):
            entries.append(Entry(name, (1, *shape), ((hf, shape),)))
        elif not (tower and (".self_attn.k_proj." in hf or ".self_attn.v_proj." in hf)):
            entries.append(Entry(name, shape, ((hf, shape),)))
    return entries


def vae_entries(vae: VaeConfig) -> list[Entry]:
    return [Entry(name, shape, ((f"vae.{name}", shape),)) for name, shape in vae_tensors(vae).items()]


def shards(entries: list[Entry], itemsize: int, limit: int) -> Iterator[list[Entry]]:
    """Cuts the list where a shard would grow beyond `limit` bytes."""
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        count = int(np.prod(entry.shape)) * itemsize
        if shard and size + count > limit:
            yield shard
            shard, size = [], 0
        shard.append(entry)
        size += count
    yield shard


def write_safetensors(path: Path, entries: list[Entry], config: JanusConfig, dtype: str, seed: int) -> None:
    header, offset = {}, 0
    for entry in entries:
        end = offset + int(np.prod(entry.shape)) * _DTYPES[dtype].itemsize
        header[entry.name] = {"dtype": _SAFETENSORS_NAMES[dtype], "shape": entry.shape, "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for entry in entries:
            file.write(entry.make(config, seed).astype(_DTYPES[dtype]).reshape(-1).view(np.uint8))


def write_bin(path: Path, entries: list[Entry], config: JanusConfig, dtype: str, seed: int) -> None:
    """torch.save reserves the space; the values are filled in afterwards."""
    import torch
    from torch._subclasses import FakeTensorMode
    from torch.serialization import set_crc32_options, skip_data

    set_crc32_options(False)
    with FakeTensorMode(), skip_data(materialize_fake_tensors=True):
        torch.save({e.name: torch.empty(e.shape, dtype=getattr(torch, _TORCH_NAMES[dtype])) for e in entries}, path)
    reserved = torch.load(path, map_location="meta", weights_only=True)
    with path.open("r+b") as file:
        for entry in entries:
            file.seek(reserved[entry.name].untyped_storage()._checkpoint_offset)
            file.write(entry.make(config, seed).astype(_DTYPES[dtype]).reshape(-1).view(np.uint8))


def make_checkpoint(
    model: str, out: Path, layout: str = "hf", format: str = "safetensors", dtype: str = "bf16", tokenizer: Path | None = None,
    seed: int = 0, shard_bytes: int = 10_000_000_000,
) -> Path:  # fmt: skip
    """Writes the folder `out` and returns it."""
    config = ALL_MODELS[model]
    out.mkdir(parents=True)
    layout = "original" if config.flow else layout
    entries = hf_entries(config) if layout == "hf" else original_entries(config)
    stem, write = ("model", write_safetensors) if format == "safetensors" else ("pytorch_model", write_bin)
    suffix = "safetensors" if format == "safetensors" else "bin"
    cut = list(shards(entries, _DTYPES[dtype].itemsize, shard_bytes))
    weight_map = {}
    for number, shard in enumerate(cut, 1):
        name = f"{stem}.{suffix}" if len(cut) == 1 else f"{stem}-{number:05}-of-{len(cut):05}.{suffix}"
        write(out / name, shard, config, dtype, seed)
        weight_map.update({entry.name: name for entry in shard})
    if len(cut) > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (out / f"{stem}.{suffix}.index.json").write_text(json.dumps(index, indent=1))
    (out / "preprocessor_config.json").write_text(json.dumps({
        "background_color": [127, 127, 127], "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "image_size": config.vision.image_size, "min_size": 14, "rescale_factor": 1 / 255,
    }, indent=1))  # fmt: skip
    if tokenizer is None:
        write_tokenizer(out, config.text.vocab_size, roles=_ROLE_TOKENS.get(model, True))
    else:
        for path in sorted(tokenizer.glob("*.json")):
            if path.name != "config.json":
                shutil.copyfile(path, out / path.name)
    placeholder = Tokenizer.from_file(str(out / "tokenizer.json")).token_to_id("<image_placeholder>")
    if config.flow:
        raw = flow_config(config)
        (out / "vae").mkdir()
        write_safetensors(out / "vae" / "diffusion_pytorch_model.safetensors", vae_entries(config.flow.vae), config, "fp32", seed)
        (out / "vae" / "config.json").write_text(json.dumps(vae_config(config.flow.vae), indent=1))
    else:
        raw = {**hf_config(config), "image_token_id": placeholder} if layout == "hf" else original_config(config)
    (out / "config.json").write_text(json.dumps(raw, indent=1))
    return out


@click.command()
@click.option("--model", type=click.Choice(list(ALL_MODELS)), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--layout", type=click.Choice(["hf", "original"]), default="original", show_default=True)
@click.option("--format", type=click.Choice(["safetensors", "bin"]), default="safetensors", show_default=True)
@click.option("--dtype", type=click.Choice(list(_DTYPES)), default="bf16", show_default=True)
@click.option(
    "--tokenizer", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder with tokenizer.json; default: a tiny one."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--shard-gb", type=FiniteFloat(), default=10.0, show_default=True, help="Largest file.")
def main(shard_gb: float, out: Path, **options) -> None:
    """Write a checkpoint with random weights."""
    if out.exists():
        raise click.ClickException(f"{out} exists; choose another folder")
    make_checkpoint(out=out, shard_bytes=int(shard_gb * 1e9), **options)
    size = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"{out}: {options['model']} with random weights, {size / 1e9:.2f} GB", err=True)


if __name__ == "__main__":
    main()
