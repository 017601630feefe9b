"""Checkpoints whose weights are codes of another library. They are refused by its name: only float weights can be exported."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .settings import read_setting

ADVICE = "export the checkpoint that it was made from; --precision int8 or int4 quantises that one here"

# What the libraries call the tensors that they put in a weight's place or beside it.
_TENSORS = {
    "GPTQ or AWQ": re.compile(r"\.(qweight|qzeros|g_idx)$"),
    "bitsandbytes": re.compile(r"\.(SCB|weight\.(absmax|nested_absmax|quant_map|nested_quant_map|quant_state\..+))$"),
    "compressed-tensors or an FP8 recipe": re.compile(r"\.(weight_packed|weight_scale(_inv)?|weight_zero_point|input_scale)$"),
    "HQQ": re.compile(r"\.W_q$"),
    "quanto": re.compile(r"\.weight\._(data|scale)$"),
}
# The older form of AutoGPTQ's and AutoAWQ's statement, in a file of its own.
_FILES = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ"}


def refuse_stated(folder: Path, raw: dict[str, Any]) -> None:
    """Raises CheckpointError where config.json `raw`, or a file of its own, says that the weights are quantised."""
    for section in (raw, *(value for value in raw.values() if isinstance(value, dict))):
        # `quantization` is MLX's name.
        for key in ("quantization_config", "compression_config", "quantization"):
            if isinstance(stated := section.get(key), dict) and stated:
                raise CheckpointError(f"{folder.name} is quantised by {_method(key, stated)}, says {key} in config.json; {ADVICE}")
    for name, method in _FILES.items():
        if read_setting(folder, name):
            raise CheckpointError(f"{folder.name} is quantised by {method}, says {name}; {ADVICE}")


def refuse_tensors(folder: Path, names: Iterable[str]) -> None:
    """Raises CheckpointError where tensors have names that only quantised checkpoints have."""
    for name in names:
        for method, pattern in _TENSORS.items():
            if pattern.search(name):
                raise CheckpointError(f"{folder.name} is quantised by {method}: it holds {name:.120}; {ADVICE}")


def _method(key: str, stated: Mapping[str, Any]) -> str:
    method = stated.get("quant_method") or stated.get("quant_algo")
    if isinstance(method, str):
        return repr(method)[:60]
    if any(str(name).startswith(("load_in_", "bnb_")) for name in stated):
        return "bitsandbytes"
    return "MLX" if key == "quantization" else "a method that it does not name"
