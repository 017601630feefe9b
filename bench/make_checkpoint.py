"""Writes a checkpoint of a family member's true shapes with random weights, in either published layout.

For measuring and testing where real weights cannot be had. Tensors are made and written one at a time; each is a
function of its HF name and the seed alone, so both layouts hold the same weights. Variances follow fan-in, so that
activations stay in fp16's range.

    python -m bench.make_checkpoint --model janus-pro-1b --layout original --format bin --out DIR --tokenizer DIR
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

from bench.tiny_tokenizer import write_tokenizer
from janus_export.config import JanusConfig, TextConfig, VisionConfig, VQConfig

_SIGLIP_L = VisionConfig(1024, 4096, 24, 16, 384, 16, 1e-6, 2)


def _member(width: int, mlp: int, layers: int, heads: int) -> JanusConfig:
    text = TextConfig(102400, width, mlp, layers, heads, 16384, 10000.0, 1e-6, False)
    return JanusConfig("hf", text, _SIGLIP_L, VQConfig(16384, 8, 256, 128, (1, 1, 2, 2, 4), 2, 2, width, 24))


MODELS = {
    "janus-1.3b": _member(2048, 5632, 24, 16),
    "janus-pro-1b": _member(2048, 5632, 24, 16),
    "janus-pro-7b": _member(4096, 11008, 30, 32),
    # The structure of the family at sizes that run in milliseconds. No two widths of `tiny` are equal.
    "tiny": JanusConfig(
        "hf",
        TextConfig(320, 64, 160, 2, 4, 1024, 10000.0, 1e-6, False),
        VisionConfig(48, 192, 2, 3, 64, 16, 1e-6, 2),
        VQConfig(512, 8, 32, 32, (1, 1, 1, 1, 2), 2, 2, 64, 4),
    ),
    "small": JanusConfig(
        "hf",
        TextConfig(384, 96, 224, 3, 3, 1024, 10000.0, 1e-6, False),
        VisionConfig(64, 256, 3, 2, 80, 16, 1e-6, 2),
        VQConfig(640, 8, 64, 32, (1, 1, 2, 2, 4), 1, 2, 96, 5),
    ),
}
# Janus-1.3B's template has no role tokens; it is told from Pro by its tokenizer.
_ROLE_TOKENS = {"janus-1.3b": False}
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
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = rng.standard_normal(shape, dtype=np.float32)
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    layers = config.text.num_layers
    if "norm" in name and name.endswith("weight"):
        return 1 + np.float32(0.1) * values
    if name.endswith("bias"):
        return np.float32(0.05) * values
    if "embed" in name and "patch" not in name or "quantize" in name:
        return values * np.float32(0.1 if "position" in name else 1)
    gain = 1.0
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        gain = (2 * layers) ** -0.5
    elif name.endswith(("projection_layer.weight", "mlp.fc2.weight")):
        gain = (2 * config.vision.num_layers) ** -0.5
    elif name.startswith("lm_head") or "generation_head.vision_head" in name:
        gain = 3.0  # Spread logits: with flat ones the largest would be a coin toss.
    elif "decoder.conv_out" in name:
        gain = 0.4  # Pixels mostly within -1 … 1.
    values *= np.float32(gain * fan_in**-0.5)
    return values


def hf_tensors(config: JanusConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the HF layout, in a fixed order. Written from the published layout."""
    text, vision, vq = config.text, config.vision, config.vq
    width, patch = text.hidden_size, vision.patch_size
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, size: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (size,)
        if bias:
            shapes[f"{name}.bias"] = (size,)

    def conv(name: str, outputs: int, inputs: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        shapes[f"{name}.bias"] = (outputs,)

    def projector(name: str, inputs: int, depth: int) -> None:
        linear(f"{name}.fc1", width, inputs)
        for i in range(depth - 1):
            linear(f"{name}.hidden_layers.{i}", width, width)

    def residual(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.norm1", inputs)
        conv(f"{name}.conv1", outputs, inputs, 3)
        norm(f"{name}.norm2", outputs)
        conv(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            conv(f"{name}.nin_shortcut", outputs, inputs, 1)

    def attention(name: str, channels: int) -> None:
        norm(f"{name}.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", channels, channels, 1)

    def half(name: str, side: str, widths: list[int], blocks: int, resample: str, attends: int) -> None:
        for i in range(len(widths) - 1):
            for j in range(blocks):
                residual(f"{name}.{side}.{i}.block.{j}", widths[i] if j == 0 else widths[i + 1], widths[i + 1])
                if i == attends:
                    attention(f"{name}.{side}.{i}.attn.{j}", widths[i + 1])
            if i < len(widths) - 2:
                conv(f"{name}.{side}.{i}.{resample}.conv", widths[i + 1], widths[i + 1], 3)
        deepest = max(widths)
        residual(f"{name}.mid.block_1", deepest, deepest)
        attention(f"{name}.mid.attn_1", deepest)
        residual(f"{name}.mid.block_2", deepest, deepest)
        norm(f"{name}.norm_out", widths[-1])

    tower = "model.vision_model"
    shapes[f"{tower}.embeddings.position_embedding.weight"] = (vision.num_tokens, vision.hidden_size)
    conv(f"{tower}.embeddings.patch_embedding", vision.hidden_size, 3, patch)
    for i in range(vision.num_layers):
        layer = f"{tower}.encoder.layers.{i}"
        norm(f"{layer}.layer_norm1", vision.hidden_size)
        for part in ("q_proj", "k_proj", "v_proj", "projection_layer"):
            linear(f"{layer}.self_attn.{part}", vision.hidden_size, vision.hidden_size)
        norm(f"{layer}.layer_norm2", vision.hidden_size)
        linear(f"{layer}.mlp.fc1", vision.mlp_size, vision.hidden_size)
        linear(f"{layer}.mlp.fc2", vision.hidden_size, vision.mlp_size)
    norm(f"{tower}.post_layernorm", vision.hidden_size)
    projector("model.aligner", vision.hidden_size, vision.aligner_depth)

    shapes["model.vqmodel.quantize.embedding.weight"] = (vq.num_ids, vq.code_size)
    conv("model.vqmodel.quant_conv", vq.code_size, vq.latent_channels, 1)
    conv("model.vqmodel.post_quant_conv", vq.latent_channels, vq.code_size, 1)
    up = [vq.base_channels * m for m in vq.multipliers]
    conv("model.vqmodel.encoder.conv_in", vq.base_channels, 3, 3)
    half("model.vqmodel.encoder", "down", [vq.base_channels, *up], vq.num_res_blocks, "downsample", len(up) - 1)
    conv("model.vqmodel.encoder.conv_out", vq.latent_channels, up[-1], 3)
    conv("model.vqmodel.decoder.conv_in", up[-1], vq.latent_channels, 3)
    half("model.vqmodel.decoder", "up", [up[-1], *up[::-1]], vq.num_res_blocks + 1, "upsample", 0)
    conv("model.vqmodel.decoder.conv_out", 3, up[0], 3)

    shapes["model.generation_embeddings.weight"] = (vq.num_ids, vq.code_size)
    projector("model.generation_aligner", vq.code_size, vq.aligner_depth)
    linear("model.generation_head.proj_out", vq.head_size, width)
    linear("model.generation_head.vision_head", vq.num_ids, vq.head_size)

    shapes["model.language_model.embed_tokens.weight"] = (text.vocab_size, width)
    for i in range(text.num_layers):
        layer = f"model.language_model.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            linear(f"{layer}.self_attn.{part}", width, width, bias=False)
        linear(f"{layer}.mlp.gate_proj", text.mlp_size, width, bias=False)
        linear(f"{layer}.mlp.up_proj", text.mlp_size, width, bias=False)
        linear(f"{layer}.mlp.down_proj", width, text.mlp_size, bias=False)
        norm(f"{layer}.input_layernorm", width, bias=False)
        norm(f"{layer}.post_attention_layernorm", width, bias=False)
    norm("model.language_model.norm", width, bias=False)
    linear("lm_head", text.vocab_size, width, bias=False)
    return shapes


def hf_entries(config: JanusConfig) -> list[Entry]:
    return [Entry(name, shape, ((name, shape),)) for name, shape in hf_tensors(config).items()]


def original_entries(config: JanusConfig) -> list[Entry]:
    """The same tensors under original names, qkv fused, with the dead tensors that real checkpoints carry."""
    shapes = hf_tensors(config)
    entries = []
    for name, shape in shapes.items():
        if ".self_attn.q_proj." in name and name.startswith("model.vision_model"):
            parts = tuple((name.replace("q_proj", part), shape) for part in ("q_proj", "k_proj", "v_proj"))
            fused = name.replace("self_attn.q_proj", "attn.qkv")
            entries.append(Entry(original_name(fused), (3 * shape[0], *shape[1:]), parts))
        elif ".self_attn.k_proj." in name or ".self_attn.v_proj." in name:
            if not name.startswith("model.vision_model"):
                entries.append(Entry(original_name(name), shape, ((name, shape),)))
        elif name.endswith("position_embedding.weight"):
            entries.append(Entry(original_name(name), (1, *shape), ((name, shape),)))
        else:
            entries.append(Entry(original_name(name), shape, ((name, shape),)))
    width = config.vision.hidden_size
    for name, shape in (
        ("vision_model.vision_tower.attn_pool.latent", (1, 1, width)),
        ("vision_model.vision_tower.attn_pool.q.weight", (width, width)),
        ("gen_vision_model.quantize.codebook_used", (65536,)),
    ):
        entries.append(Entry(name, shape, ((name, shape),)))
    return entries


def original_name(name: str) -> str:
    """HF name -> original name, by the published layout (not by the exporter's rules, which this tests)."""
    for prefix, original in (
        ("model.vision_model.embeddings.patch_embedding.", "vision_model.vision_tower.patch_embed.proj."),
        ("model.vision_model.embeddings.position_embedding.weight", "vision_model.vision_tower.pos_embed"),
        ("model.vision_model.encoder.layers.", "vision_model.vision_tower.blocks."),
        ("model.vision_model.post_layernorm.", "vision_model.vision_tower.norm."),
        ("model.aligner.fc1.", "aligner.layers.0."),
        ("model.aligner.hidden_layers.0.", "aligner.layers.2."),
        ("model.generation_aligner.fc1.", "gen_aligner.layers.0."),
        ("model.generation_aligner.hidden_layers.0.", "gen_aligner.layers.2."),
        ("model.generation_embeddings.", "gen_embed."),
        ("model.generation_head.proj_out.", "gen_head.output_mlp_projector."),
        ("model.generation_head.vision_head.", "gen_head.vision_head."),
        ("model.vqmodel.encoder.down.", "gen_vision_model.encoder.conv_blocks."),
        ("model.vqmodel.decoder.up.", "gen_vision_model.decoder.conv_blocks."),
        ("model.vqmodel.", "gen_vision_model."),
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    ):
        if name.startswith(prefix):
            name = original + name.removeprefix(prefix)
            break
    if name.startswith("vision_model.vision_tower"):
        for hf, old in ((".layer_norm", ".norm"), (".self_attn.projection_layer.", ".attn.proj.")):
            name = name.replace(hf, old)
    if name.startswith("gen_vision_model"):
        for hf, old in ((".block.", ".res."), (".mid.block_1.", ".mid.0."), (".mid.attn_1.", ".mid.1."), (".mid.block_2.", ".mid.2.")):
            name = name.replace(hf, old)
    return name


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
            file.write(memoryview(entry.make(config, seed).astype(_DTYPES[dtype])).cast("B"))


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
            file.write(memoryview(entry.make(config, seed).astype(_DTYPES[dtype])).cast("B"))


def hf_config(config: JanusConfig) -> dict:
    text, vision, vq = config.text, config.vision, config.vq
    return {
        "architectures": ["JanusForConditionalGeneration"],
        "model_type": "janus",
        "image_token_id": 5,
        "tie_word_embeddings": False,
        "random_weights": True,
        "text_config": {"model_type": "llama", **_llama(text), "head_dim": text.head_size},
        "vision_config": {
            "model_type": "janus_vision_model",
            "hidden_size": vision.hidden_size,
            "num_hidden_layers": vision.num_layers,
            "num_attention_heads": vision.num_heads,
            "mlp_ratio": vision.mlp_size / vision.hidden_size,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_image_tokens": vision.num_tokens,
            "projection_dim": text.hidden_size,
            "depth": vision.aligner_depth,
        },
        "vq_config": {
            "model_type": "janus_vqgan",
            "embed_dim": vq.code_size,
            "num_embeddings": vq.num_ids,
            "latent_channels": vq.latent_channels,
            "base_channels": vq.base_channels,
            "channel_multiplier": vq.multipliers,
            "num_res_blocks": vq.num_res_blocks,
            "num_patches": vq.grid,
            "projection_dim": vq.head_size,
            "image_token_embed_dim": text.hidden_size,
            "num_hidden_layers": vq.aligner_depth,
        },
    }


def original_config(config: JanusConfig) -> dict:
    """As published, with sizes spelled out beside the names so that small models can be stated too."""
    text, vision, vq = config.text, config.vision, config.vq
    named = "siglip_large_patch16_384" if vision == _SIGLIP_L else "spelled out"
    sizes = {
        "width": vision.hidden_size,
        "layers": vision.num_layers,
        "heads": vision.num_heads,
        "patch_size": vision.patch_size,
        "mlp_ratio": vision.mlp_size / vision.hidden_size,
    }
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "random_weights": True,
        "language_config": _llama(text),
        "vision_config": {
            "cls": "CLIPVisionTower",
            "model_type": "vision",
            "params": {
                "image_size": vision.image_size,
                "model_name": named,
                "select_feature": "same",
                "select_layer": -1,
                **({} if vision == _SIGLIP_L else sizes),
            },
        },
        "aligner_config": _projector("aligner", vision.aligner_depth, vision.hidden_size, text.hidden_size),
        "gen_vision_config": {
            "cls": "VQ-16",
            "model_type": "gen_vision",
            "params": {
                "image_token_size": vq.num_ids,
                "n_embed": vq.code_size,
                **({} if vq.base_channels == 128 else {"z_channels": vq.latent_channels, "ch": vq.base_channels,
                   "ch_mult": vq.multipliers, "num_res_blocks": vq.num_res_blocks}),
            },
        },  # fmt: skip
        "gen_aligner_config": _projector("gen_aligner", vq.aligner_depth, vq.code_size, text.hidden_size),
        "gen_head_config": {
            "cls": "vision_head",
            "model_type": "gen_head",
            "params": {"image_token_embed": vq.head_size, "image_token_size": vq.num_ids, "n_embed": text.hidden_size},
        },
    }


def _projector(kind: str, depth: int, inputs: int, outputs: int) -> dict:
    params = {"depth": depth, "input_dim": inputs, "n_embed": outputs, "projector_type": "mlp_gelu"}
    return {"cls": "MlpProjector", "model_type": kind, "params": params}


def _llama(text: TextConfig) -> dict:
    return {
        "model_type": "llama",
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.mlp_size,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "num_key_value_heads": text.num_heads,
        "max_position_embeddings": text.max_length,
        "tie_word_embeddings": text.tied_head,
        "torch_dtype": "bfloat16",
    }


def make_checkpoint(
    model: str, out: Path, layout: str = "hf", format: str = "safetensors", dtype: str = "bf16", tokenizer: Path | None = None,
    seed: int = 0, shard_bytes: int = 10_000_000_000,
) -> Path:  # fmt: skip
    """Writes the folder `out` and returns it."""
    config = MODELS[model]
    out.mkdir(parents=True)
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
    raw = hf_config(config) if layout == "hf" else original_config(config)
    (out / "config.json").write_text(json.dumps(raw, indent=1))
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
    return out


@click.command()
@click.option("--model", type=click.Choice(list(MODELS)), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--layout", type=click.Choice(["hf", "original"]), default="original", show_default=True)
@click.option("--format", type=click.Choice(["safetensors", "bin"]), default="safetensors", show_default=True)
@click.option("--dtype", type=click.Choice(list(_DTYPES)), default="bf16", show_default=True)
@click.option("--tokenizer", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder with tokenizer.json; default: a tiny one.")
@click.option("--seed", default=0, show_default=True)
@click.option("--shard-gb", default=10.0, show_default=True, help="Largest file.")
def main(shard_gb: float, out: Path, **options) -> None:
    """Write a checkpoint with random weights."""
    if out.exists():
        raise click.ClickException(f"{out} exists; choose another folder")
    make_checkpoint(out=out, shard_bytes=int(shard_gb * 1e9), **options)
    size = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"{out}: {options['model']} with random weights, {size / 1e9:.2f} GB", err=True)


if __name__ == "__main__":
    main()
