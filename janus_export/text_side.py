"""The text side of a bundle: tokenizer, special tokens and template, found by string and never by id."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from janus_runtime.manifest import Family, Template, Token, Tokens

from .checkpoint import Checkpoint
from .config import CheckpointError

# The class attribute of both original processors; transformers' default ends in two more newlines.
SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
_ROLES: dict[Family, tuple[str, str]] = {"janus-pro": ("<|User|>", "<|Assistant|>"), "janus": ("User", "Assistant")}
# What the original processors call each tag in processor_config.json, and its default, in their order of adding.
_TAGS = {
    "image_placeholder": ("image_tag", "<image_placeholder>"),
    "begin_of_image": ("image_start_tag", "<begin_of_image>"),
    "end_of_image": ("image_end_tag", "<end_of_image>"),
}
_NAMES = {
    "bos": ("bos_token", "<｜begin▁of▁sentence｜>"),
    "eos": ("eos_token", "<｜end▁of▁sentence｜>"),
    "pad": ("pad_token", "<｜▁pad▁｜>"),
}


def read_text_side(checkpoint: Checkpoint) -> tuple[Tokenizer, Tokens, Template, Family]:
    """-> tokenizer with every tag in it, special tokens, template, family. Raises CheckpointError."""
    path = checkpoint.folder / "tokenizer.json"
    tokenizer = _read_tokenizer(path)
    processor = checkpoint.json("processor_config.json")
    known = {**checkpoint.json("tokenizer_config.json"), **checkpoint.json("special_tokens_map.json")}
    texts = {name: processor.get(key, default) for name, (key, default) in _TAGS.items()}
    for text in texts.values():
        # The original processors add a tag that a tokenizer lacks, at load.
        if tokenizer.token_to_id(text) is None:
            tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
    for name, (key, default) in _NAMES.items():
        stated = known.get(key)
        texts[name] = (stated.get("content") if isinstance(stated, dict) else stated) or default
    if tokenizer.token_to_id(texts["pad"]) is None:
        # As the original does where a tokenizer has no pad.
        texts["pad"] = texts["eos"]
    tokens = Tokens(**{name: Token(text, _id(tokenizer, text, path)) for name, text in texts.items()})
    vocab_size = checkpoint.config.text.vocab_size
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= vocab_size:
        raise CheckpointError(f"{path} has ids up to {largest}, the model embeds {vocab_size}; they do not belong together")
    family: Family = "janus-pro" if tokenizer.token_to_id(_ROLES["janus-pro"][0]) is not None else "janus"
    user, assistant = _ROLES[family]
    template = Template(SYSTEM, user, assistant, "\n\n", "\n\n", tokens.eos.text)
    return tokenizer, tokens, template, family


def preprocessing(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of ImageInput, from preprocessor_config.json of either layout."""
    raw = checkpoint.json("preprocessor_config.json")
    size = raw.get("image_size", raw.get("size", checkpoint.config.vision.image_size))
    size = size.get("height") if isinstance(size, dict) else size
    if size != checkpoint.config.vision.image_size:
        raise CheckpointError(f"preprocessor_config.json scales to {size}, the model takes {checkpoint.config.vision.image_size}")
    if not raw.get("do_normalize", True):
        raise CheckpointError(
            "preprocessor_config.json says do_normalize false, a mistake that the publishers corrected on 2024-11-14; "
            "set it to true or fetch the file again"
        )
    mean = tuple(map(float, raw.get("image_mean") or (0.5, 0.5, 0.5)))
    return {
        "size": size,
        "min_size": raw.get("min_size", 14),
        "mean": mean,
        "std": tuple(map(float, raw.get("image_std") or (0.5, 0.5, 0.5))),
        "background": tuple(raw.get("background_color") or (int(value * 255) for value in mean)),
    }


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; fetch the checkpoint with its tokenizer")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer: {error}") from None


def _id(tokenizer: Tokenizer, text: str, path: Path) -> int:
    number = tokenizer.token_to_id(text)
    if number is None:
        raise CheckpointError(f"{path} has no token {text!r}, which Janus needs; is it this model's tokenizer?")
    return int(number)
