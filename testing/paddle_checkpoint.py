"""Turns a checkpoint of the original layout into PaddleMIX's, its files as `paddle.save` writes them, without Paddle.

    python -m testing.paddle_checkpoint --src DIR --out DIR

`--form state` is what Paddle makes of a dictionary of tensors, `tensors` what it makes of one that holds other things too. A file
is pickled whole, so the largest must fit into memory.
"""

import copyreg
import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import ml_dtypes
import numpy as np
from safetensors import safe_open

from janus_runtime.console.commands import FiniteFloat

# Layers of these names are linear in both models; what else has two axes is a table or a vector.
_LINEAR = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head", "qkv", "proj", "fc1", "fc2", "q", "kv",
    "output_mlp_projector", "vision_head", "vision_und_enc_aligner", "vision_gen_enc_aligner", "vision_gen_dec_aligner", "linear_1",
    "linear_2", "channelwise_linear_1", "channelwise_linear_2", "cond_embeds_mapper", "0", "2",
)  # fmt: skip


@dataclass
class PaddleTensor:
    """Stands for a tensor of Paddle's: NumPy's values and the name that Paddle made up."""

    name: str
    values: np.ndarray


def paddle_name(name: str) -> str:
    return name.replace("language_model.model.", "language_model.llama.")


def paddle_values(name: str, values: np.ndarray) -> np.ndarray:
    """[out, in] of a linear layer -> [in, out]; bf16 as its bits."""
    if values.ndim == 2 and name.endswith(".weight") and name.split(".")[-2] in _LINEAR:
        values = np.ascontiguousarray(values.T)
    return values.view(np.uint16) if values.dtype == ml_dtypes.bfloat16 else values


def save(path: Path, tensors: dict[str, np.ndarray], form: str = "state", protocol: int = 4) -> None:
    """Writes what `paddle.save(tensors, path, protocol)` writes."""
    named = {name: f"linear_{number}.w_0" for number, name in enumerate(tensors)}
    with path.open("wb") as file:
        if form == "state":
            pickle.dump({**tensors, "StructuredToParameterName@@": named}, file, protocol)
        else:
            pickler = pickle.Pickler(file, protocol)
            pickler.dispatch_table = copyreg.dispatch_table.copy()
            pickler.dispatch_table[PaddleTensor] = lambda tensor: (tuple, ((tensor.name, tensor.values),))
            pickler.dump({name: PaddleTensor(named[name], values) for name, values in tensors.items()})


def to_paddle(source: Path, out: Path, form: str = "state", protocol: int = 4, shard_bytes: int = 10_000_000_000) -> Path:
    """Writes the folder `out` and returns it. What is not weights is copied, JanusFlow's `vae` too."""
    shutil.copytree(source, out, ignore=lambda folder, names: [name for name in names if Path(folder) == source and "safetensors" in name])
    cut = list(_shards(source, shard_bytes))
    weight_map = {}
    for number, shard in enumerate(cut, 1):
        name = "model_state.pdparams" if len(cut) == 1 else f"model_state-{number:05}-of-{len(cut):05}.pdparams"
        save(out / name, shard, form, protocol)
        weight_map.update(dict.fromkeys(shard, name))
    if len(cut) > 1:
        index = {"metadata": {"total_size": sum(a.nbytes for shard in cut for a in shard.values())}, "weight_map": weight_map}
        (out / "model_state.pdparams.index.json").write_text(json.dumps(index, indent=2))
    raw = json.loads((out / "config.json").read_text())
    architecture = "JanusFlowMultiModalityCausalLM" if "vision_gen_enc_config" in raw else "JanusMultiModalityCausalLM"
    raw |= {"architectures": [architecture], "dtype": "bfloat16", "paddlenlp_version": None}
    raw["language_config"] |= {"fuse_attention_qkv": False, "fuse_attention_ffn": False, "alibi": False, "rope_scaling_type": None}
    (out / "config.json").write_text(json.dumps(raw, indent=2))
    return out


def _shards(source: Path, limit: int) -> Iterator[dict[str, np.ndarray]]:
    shard: dict[str, np.ndarray] = {}
    for path in sorted(source.glob("model*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():
                values = paddle_values(name, file.get_tensor(name))
                if shard and sum(array.nbytes for array in shard.values()) + values.nbytes > limit:
                    yield shard
                    shard = {}
                shard[paddle_name(name)] = values
    yield shard


@click.command()
@click.option("--src", "source", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--form", type=click.Choice(["state", "tensors"]), default="state", show_default=True)
@click.option("--shard-gb", type=FiniteFloat(), default=10.0, show_default=True, help="Largest file.")
def main(source: Path, out: Path, form: str, shard_gb: float) -> None:
    """Write a checkpoint in PaddleMIX's layout."""
    if out.exists():
        raise click.ClickException(f"{out} exists; choose another folder")
    to_paddle(source, out, form, shard_bytes=int(shard_gb * 1e9))


if __name__ == "__main__":
    main()
