"""Any published layout -> config and lazily read tensors under one naming.

The one naming is the HF `janus` layout's. A tensor is a place in a file until `read()`: files are read,
not mapped, so that resident memory holds one tensor at a time.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from janus_runtime.errors import first_line
from janus_runtime.paths import printable, resolve_path

from ..errors import CheckpointError, VaeError
from .config import is_flow, parse_config
from .finetunes import unwrapped
from .layouts import original_to_hf, vae_to_ours
from .pdparams import is_paddle, paddle_to_original, read_pdparams
from .quantised import ADVICE, refuse_stated, refuse_tensors
from .settings import adapter_notes, read_json, read_preprocessing, read_setting, read_special_tokens
from .sizes import JanusConfig
from .tensor import Tensor, lfs_hint
from .weight_files import VAE_WEIGHTS, WEIGHTS, Located, choose_weights

SDXL_VAE = "stabilityai/sdxl-vae"

_SAFETENSORS_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U16": np.dtype(ml_dtypes.bfloat16),  # Paddle's, which saves the bits as NumPy has them
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


@dataclass(frozen=True)
class Vae:
    """JanusFlow's VAE as it is stored: a checkpoint of its own."""

    name: str
    folder: Path
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint: `tensors` go by HF name, the VAE's too; `revision` is the commit of a hub id.

    `folder` is absolute. `vae` is JanusFlow's alone. `notes` say what was chosen, left out or renamed, a line each.
    """

    name: str
    revision: str | None
    folder: Path
    config: JanusConfig
    tensors: dict[str, Tensor]
    vae: Vae | None = None
    notes: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """The dtypes of the stored tensors, most bytes first."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.dtype.name] = sizes.get(tensor.dtype.name, 0) + int(np.prod(tensor.shape))
        return ", ".join(sorted(sizes, key=lambda name: -sizes[name]))

    def json(self, name: str) -> dict[str, Any]:
        """A small JSON file beside the weights; empty where there is none."""
        return read_setting(self.folder, name)


def open_checkpoint(source: str, vae: str | None = None, draws: bool = True) -> Checkpoint:
    """A folder or a hub id. Nothing but headers is read. Raises CheckpointError, VaeError if it is JanusFlow's VAE that is not to be had.

    `vae`: where JanusFlow's VAE is, a diffusers `AutoencoderKL`; by default the folder `vae` beside the weights, else SDXL's on the hub.
    Without `draws` it is left alone.
    """
    located = _locate(source, {"": WEIGHTS, "vae": VAE_WEIGHTS}, ("config.json", "tokenizer.json"))
    folder = located.folder
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise CheckpointError(
                f"{folder} is an adapter; expected whole weights: merge it with merge_and_unload() in PEFT and save those"
            )
        raise CheckpointError(f"{folder} has no config.json; expected a checkpoint folder or a hub id")
    raw = read_json(folder / "config.json")
    refuse_stated(folder, raw)
    if vae and not is_flow(raw):
        raise CheckpointError(f"{source} is no JanusFlow checkpoint: it decodes pictures by itself; leave --vae out")
    latents, vae_notes = _open_vae(vae, located) if is_flow(raw) and draws else (None, ())
    config = parse_config(raw, read_json(latents.folder / "config.json") if latents else None)
    files, weight_notes = choose_weights(folder, located.names, WEIGHTS)
    stored = _read_tensors([folder / name for name in files])
    refuse_tensors(folder, stored)
    tensors, tensor_notes = unwrapped(stored, config.layout)
    if config.layout == "multi_modality":
        tensors = original_to_hf(paddle_to_original(tensors) if is_paddle(tensors) else tensors)
    embedding = "model.language_model.embed_tokens.weight"
    if config.text.tied_head and "lm_head.weight" not in tensors and embedding in tensors:
        # A tied checkpoint stores one matrix for embedding and head; here each has its name.
        tensors["lm_head.weight"] = tensors[embedding]
    if latents:
        tensors |= vae_to_ours(latents.tensors)
    setting_notes = (*read_special_tokens(folder)[1], *read_preprocessing(folder)[1], *adapter_notes(folder, located.names))
    notes = (*located.notes, *weight_notes, *vae_notes, *tensor_notes, *setting_notes)
    return Checkpoint(source if located.revision else folder.name, located.revision, folder, config, tensors, latents, notes)


def _open_vae(source: str | None, beside: Located) -> tuple[Vae, tuple[str, ...]]:
    """JanusFlow's VAE from `source`, else from the checkpoint's own folder, else SDXL's; and notes."""
    try:
        if source or not (beside.folder / "vae").is_dir():
            source = source or SDXL_VAE
            located = _locate(source, {"": VAE_WEIGHTS}, ("config.json",))
        else:
            # Of a hub id, the names of its repository are known, of which the folder has those that were chosen.
            located = beside.inside("vae") if beside.revision else _locate(str(beside.folder / "vae"), {}, ())
        folder = located.folder
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder} has no config.json; expected the folder of a diffusers AutoencoderKL")
        refuse_stated(folder, read_json(folder / "config.json"))
        name = f"{source} at {located.revision}" if located.revision else folder.name
        files, notes = choose_weights(folder, located.names, VAE_WEIGHTS)
        return Vae(name, folder, _read_tensors([folder / file for file in files])), tuple(
            f"VAE: {note}" for note in (*located.notes, *notes)
        )
    except CheckpointError as error:
        raise VaeError(f"JanusFlow decodes pictures with a VAE of its own ({SDXL_VAE}, or --vae): {error}") from None


def _read_tensors(paths: list[Path]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in paths:
        for name, tensor in _READERS[path.suffix](path):
            if name in tensors:
                raise CheckpointError(f"{name} is in {tensors[name].path.name} and in {path.name}; expected it once")
            tensors[name] = tensor
    return tensors


def _locate(source: str, wanted: dict[str, tuple[str, ...]], needed: tuple[str, ...]) -> Located:
    """A folder as it is, or a hub id, fetched. `wanted`, `needed`: see `hub.fetch`. Raises CheckpointError."""
    local = Path(source)
    if local.exists():
        if not local.is_dir():
            made_for_llama = f": a GGUF file is made for llama.cpp; {ADVICE}" if local.suffix == ".gguf" else ""
            raise CheckpointError(f"{printable(source)} is a file; give the folder that holds config.json and the weights{made_for_llama}")
        folder = resolve_path(local)
        return Located(folder, None, frozenset(path.name for path in folder.iterdir() if path.is_file()))
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise CheckpointError(f"no folder {printable(source)}, and it is no hub id of the form owner/name")
    from .hub import fetch

    return fetch(source, wanted, needed)


def _read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The header: 8 bytes of length, JSON, then tensors at the offsets it states.

    Read here and not with the safetensors library, which maps the file: pages that were read stay resident.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise CheckpointError(f"{path} is not a whole safetensors file{lfs_hint(path)}; fetch it again")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} has a damaged header ({first_line(error)}); fetch it again") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a damaged header (no object); fetch it again")
    ranges = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        stated = entry.get("dtype") if isinstance(entry, dict) else None
        if isinstance(stated, str) and stated not in _SAFETENSORS_DTYPES:
            raise CheckpointError(
                f"{path}: {name} has dtype {stated:.20}, which quantised checkpoints use; expected float32, float16 or bfloat16: {ADVICE}"
            )
        try:
            dtype, shape = _SAFETENSORS_DTYPES[entry["dtype"]], tuple(entry["shape"])
            first, last = entry["data_offsets"]
            good = all(type(value) is int and value >= 0 for value in (*shape, first, last))
            good = good and last - first == math.prod(shape) * dtype.itemsize
        except (KeyError, TypeError, ValueError):
            good = False
        if not good:
            raise CheckpointError(f"{path}: {name} has a damaged entry ({entry!r:.80}); fetch the file again")
        ranges.append((first, last))
        if 8 + length + last > size:
            raise CheckpointError(f"{path} is {size} bytes, too short for {name}: truncated; fetch it again")
        yield name, Tensor(path, 8 + length + first, dtype, shape)
    # The format leaves no gaps: each tensor begins where another ended.
    ranges.sort()
    if [0, *(last for _, last in ranges)] != [*(first for first, _ in ranges), size - 8 - length]:
        raise CheckpointError(f"{path} has tensors that overlap, or bytes that belong to none: damaged; fetch it again")


def _read_bin(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Unpickles names, shapes and file offsets only, under torch's weights-only rules."""
    import torch

    dtypes = {getattr(torch, dtype.name): dtype for dtype in _SAFETENSORS_DTYPES.values()}
    try:
        state = torch.load(path, map_location="meta", weights_only=True, mmap=False)
    except Exception:  # Rubbish makes the unpickler raise almost anything; torch's advice is to trust the file.
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors{lfs_hint(path)}; only weights are read from pickles: fetch it again, "
            "or save it as safetensors where it is trusted"
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}; expected a flat dictionary of tensors")
    if nested := [name for name, value in state.items() if isinstance(value, dict)]:
        raise CheckpointError(
            f"{path}: {nested[0]} is a dict; expected a flat dictionary of tensors: load it with torch and save the one that holds the "
            "weights by itself, best as safetensors"
        )
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: {name} is a {type(value).__name__}; expected a flat dictionary of tensors")
        if value.dtype not in dtypes:
            raise CheckpointError(
                f"{path}: {name} has dtype {value.dtype}, which quantised checkpoints use; expected float32, float16 or bfloat16: {ADVICE}"
            )
        plain = value.layout == torch.strided and value.is_contiguous()
        offset = value.untyped_storage()._checkpoint_offset if plain else None
        if offset is None:
            raise CheckpointError(
                f"{path}: {name} is not stored as one plain piece (old format, sparse or strided); "
                "load it with torch and save it again as safetensors"
            )
        dtype = dtypes[value.dtype]
        yield name, Tensor(path, offset + value.storage_offset() * dtype.itemsize, dtype, tuple(value.shape))


_READERS = {".bin": _read_bin, ".pdparams": read_pdparams, ".safetensors": _read_safetensors}
