"""The small JSON files beside the weights. Where two state the same thing, transformers' order decides and a note says so."""

import json
from pathlib import Path
from typing import Any

from janus_runtime.errors import first_line

from ..errors import CheckpointError

# All that is read, so all that is fetched from a hub.
FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "processor_config.json",
    "preprocessor_config.json",
    "adapter_config.json",
    "quantize_config.json",
    "quant_config.json",
)
_TOKENS = ("bos_token", "eos_token", "pad_token")


def read_json(path: Path) -> dict[str, Any]:
    """An object. Raises CheckpointError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({first_line(error)}); fetch it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}; expected an object")
    return value


def read_setting(folder: Path, name: str) -> dict[str, Any]:
    """One of FILES; empty where it is not there."""
    return read_json(folder / name) if (folder / name).is_file() else {}


def read_preprocessing(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """-> what processor_config.json nests under image_processor, else preprocessor_config.json; notes."""
    nested = read_setting(folder, "processor_config.json").get("image_processor")
    own = read_setting(folder, "preprocessor_config.json")
    if not isinstance(nested, dict) or not nested:
        return own, ()
    differing = sorted(key for key in nested.keys() & own.keys() if nested[key] != own[key])
    if not differing:
        return nested, ()
    return nested, (
        f"preprocessing is read from processor_config.json, as transformers does; preprocessor_config.json differs in "
        f"{', '.join(differing)} and is left",
    )


def read_special_tokens(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """-> bos_token, eos_token and pad_token as stated, where they are; notes.

    special_tokens_map.json is the older place: once tokenizer_config.json lists the added tokens, transformers reads that alone.
    """
    files = ["tokenizer_config.json", "special_tokens_map.json"]
    if "added_tokens_decoder" not in read_setting(folder, files[0]):
        files.reverse()
    first, second = ({key: value for key in _TOKENS if (value := read_setting(folder, name).get(key))} for name in files)
    differing = [key for key in first.keys() & second.keys() if _content(first[key]) != _content(second[key])]
    notes = [
        f"{key} is {_content(first[key])!r:.60} from {files[0]}, as transformers reads it; {files[1]} says {_content(second[key])!r:.60}"
        for key in sorted(differing)
    ]
    return {**second, **first}, tuple(notes)


def adapter_notes(folder: Path, names: frozenset[str]) -> tuple[str, ...]:
    """What to say of a PEFT adapter that lies beside whole weights."""
    files = sorted(name for name in names if name == "adapter_config.json" or name.startswith("adapter_model."))
    if not files:
        return ()
    base = read_setting(folder, "adapter_config.json").get("base_model_name_or_path")
    of = f" (made for {base!r:.80})" if isinstance(base, str) else ""
    return (
        f"the adapter beside the weights{of} was not applied: {', '.join(files)}; to export the tuned model, load both with PEFT, "
        "call merge_and_unload() and save what it returns",
    )


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
