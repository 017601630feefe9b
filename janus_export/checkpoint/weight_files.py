"""Which of a checkpoint's files hold its weights. transformers' order decides; what is left is named in a note."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from janus_runtime.paths import printable

from ..errors import CheckpointError
from .quantised import ADVICE
from .settings import read_json

# In order of preference: a file that stands alone before its shards, which may be left over from before a fine-tune.
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model_state.pdparams")
VAE_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
SUFFIXES = (".bin", ".pdparams", ".safetensors")

_SHARD = re.compile(r"-\d+-of-\d+$")
# Beside weights, trainers save what is none.
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state\w*|adapter_model)\.")


@dataclass(frozen=True)
class Located:
    """A checkpoint's folder, absolute. `names`: the files in it; of a hub id, at commit `revision`, all that its repository has."""

    folder: Path
    revision: str | None
    names: frozenset[str]
    notes: tuple[str, ...] = ()

    def inside(self, name: str) -> "Located":
        """The same of a folder within."""
        start = f"{name}/"
        return Located(self.folder / name, None, frozenset(n.removeprefix(start) for n in self.names if n.startswith(start)))


def choose_weights(folder: Path, names: Collection[str], kinds: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """-> the files that hold the weights, and notes. `names` are the files to choose from; an index is read from `folder`.

    Raises CheckpointError where there are none, or not all that an index lists.
    """
    taken = next((name for kind in kinds for name in (kind, index_of(kind)) if name in names), None)
    if taken is None:
        raise _no_weights(folder, names, kinds)
    files = [taken] if taken in kinds else _listed(folder / taken)
    if missing := [name for name in files if name not in names]:
        raise CheckpointError(f"{folder / taken} lists {', '.join(missing)}, which is not there; fetch the checkpoint again")
    indices = [index_of(kind) for kind in kinds]
    left = sorted(name for name in names if name not in (taken, *files) and (name in indices or _may_hold_weights(name)))
    if not left:
        return files, ()
    more = f" and {len(left) - 5} more" if len(left) > 5 else ""
    return files, (f"weights are read from {taken}; left: {', '.join(map(printable, left[:5]))}{more}",)


def index_of(kind: str) -> str:
    """The file that says which shard holds which tensor."""
    return f"{kind}.index.json"


def _listed(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(map(_names_weights, weight_map.values())):
        raise CheckpointError(f"{index} has no weight_map from tensors to files beside it; fetch it again")
    return sorted(set(weight_map.values()))


def _names_weights(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name and Path(name).suffix in SUFFIXES


def _may_hold_weights(name: str) -> bool:
    return "/" not in name and name.endswith((*SUFFIXES, ".gguf", ".pt", ".pth", ".ckpt")) and not _NO_WEIGHTS.match(name)


def _no_weights(folder: Path, names: Collection[str], kinds: Sequence[str]) -> CheckpointError:
    found = sorted(filter(_may_hold_weights, names))
    if gguf := [name for name in found if name.endswith(".gguf")]:
        return CheckpointError(f"{folder} has its weights in {printable(gguf[0])}, made for llama.cpp; {ADVICE}")
    for kind in kinds:
        path = Path(kind)
        if shards := [
            name for name in found if name.startswith(path.stem) and name.endswith(path.suffix) and _SHARD.search(Path(name).stem)
        ]:
            return CheckpointError(f"{folder} has {shards[0]} and no {index_of(kind)}, which says what each shard holds; fetch that too")
    *most, last = (kind.replace(".", "*.") for kind in kinds)
    other = f"; found {', '.join(map(printable, found[:5]))}" if found else ""
    return CheckpointError(f"{folder} has no weights; expected {', '.join(most)} or {last}{other}")
