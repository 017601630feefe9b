"""The text side of a bundle: tokenizer, special tokens and template, found by string and never by id."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from janus_runtime.bundle.manifest import Family, ImageInput, Template, Token, Tokens
from janus_runtime.prompt import explain_unreadable

from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .settings import read_preprocessing, read_special_tokens

# The class attribute of both original processors; transformers' default ends in two more newlines.
SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
_ROLES: dict[Family, tuple[str, str]] = {
    "janus-pro": ("<|User|>", "<|Assistant|>"),
    "janus": ("User", "Assistant"),
    "janus-flow": ("User", "Assistant"),
}
# What the original processors call each tag in processor_config.json, and its default, in their order of adding.
_TAGS = {
    "image_placeholder": ("image_tag", "<image_placeholder>"),
    "begin_of_image": ("image_start_tag", "<begin_of_image>"),
    "end_of_image": ("image_end_tag", "<end_of_image>"),
}
# JanusFlow's processor adds this one after the first of those, whether a prompt uses it or not: later ids count on from it.
_GENERATION = ("image_gen_tag", "<｜begin▁of▁generation｜>")
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
    known = read_special_tokens(checkpoint.folder)[0]
    texts = {name: _text(processor.get(key), default, key) for name, (key, default) in _TAGS.items()}
    added = list(texts.values())
    if checkpoint.config.flow is not None:
        key, default = _GENERATION
        added.insert(1, _text(processor.get(key), default, key))
    for text in added:
        # The original processors add a tag that a tokenizer lacks, at load.
        if tokenizer.token_to_id(text) is None:
            tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
    for name, (key, default) in _NAMES.items():
        texts[name] = _text(known.get(key), default, key)
    if tokenizer.token_to_id(texts["pad"]) is None:
        # As the original does where a tokenizer has no pad.
        texts["pad"] = texts["eos"]
    tokens = Tokens(**{name: Token(text, _id(tokenizer, text, path)) for name, text in texts.items()})
    vocab_size = checkpoint.config.text.vocab_size
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= vocab_size:
        raise CheckpointError(f"{path} has ids up to {largest}, the model embeds {vocab_size}; they do not belong together")
    stated = checkpoint.json("config.json").get("image_token_id")
    if checkpoint.config.layout == "hf" and stated not in (None, tokens.image_placeholder.id):
        raise CheckpointError(
            f"config.json says image_token_id {stated!r:.40}, {path} gives {tokens.image_placeholder.text} the id "
            f"{tokens.image_placeholder.id}; they do not belong together"
        )
    pro = tokenizer.token_to_id(_ROLES["janus-pro"][0]) is not None
    family: Family = "janus-flow" if checkpoint.config.flow else "janus-pro" if pro else "janus"
    user, assistant = _ROLES[family]
    template = Template(SYSTEM, user, assistant, "\n\n", "\n\n", tokens.eos.text)
    return tokenizer, tokens, template, family


def read_image_input(checkpoint: Checkpoint) -> ImageInput:
    """The preprocessing that the checkpoint states, in any of the places that the layouts use.

    Raises CheckpointError on what is no preprocessing of Janus.
    """
    raw = read_preprocessing(checkpoint.folder)[0]
    size, vision = raw.get("image_size", raw.get("size")), checkpoint.config.vision
    size = size.get("height") if isinstance(size, dict) else size
    if size not in (None, vision.image_size):
        raise CheckpointError(f"the preprocessor scales to {size!r:.40}, the model takes {vision.image_size}")
    if raw.get("do_normalize") is False:
        raise CheckpointError(
            "the preprocessor says do_normalize false, a mistake that the publishers corrected on 2024-11-14; "
            "set it to true or fetch the file again"
        )
    for key, expected in (("do_resize", True), ("do_rescale", True), ("do_pad", True), ("resample", 3)):
        if raw.get(key, expected) not in (expected, None):
            raise CheckpointError(f"the preprocessor says {key} {raw[key]!r:.40}; this export builds {expected!r} only")
    if abs(_numbers(raw, "rescale_factor", (1 / 255,))[0] * 255 - 1) > 1e-6:
        raise CheckpointError(f"the preprocessor says rescale_factor {raw['rescale_factor']}; this export builds 1/255 only")
    mean = _numbers(raw, "image_mean", (0.5, 0.5, 0.5))
    background = _numbers(raw, "background_color", tuple(int(value * 255) for value in mean))
    min_size = _numbers(raw, "min_size", (14,))[0]
    whole = all(value == int(value) for value in (min_size, *background))
    if not whole or not 1 <= min_size <= vision.image_size or not all(0 <= value <= 255 for value in background):
        raise CheckpointError(f"the preprocessor says min_size {min_size:g} and background {background}; expected whole numbers in range")
    std = _numbers(raw, "image_std", (0.5, 0.5, 0.5))
    if min(std) <= 0:
        raise CheckpointError(f"the preprocessor says image_std {list(std)}, by which pixels are divided; expected numbers above 0")
    return ImageInput(
        size=vision.image_size,
        min_size=int(min_size),
        mean=mean,
        std=std,
        background=tuple(map(int, background)),
        num_tokens=checkpoint.config.image_tokens,
        includes_begin=checkpoint.config.flow is not None,
    )


def _numbers(raw: dict[str, Any], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """As many numbers as the default has."""
    value = raw.get(key)
    values = list(default) if value is None else value if isinstance(value, list) else [value]
    if len(values) != len(default) or not all(type(item) in (int, float) and abs(item) < 1e6 for item in values):
        raise CheckpointError(f"the preprocessor says {key} {value!r:.60}; expected {len(default)} number{'s' * (len(default) > 1)}")
    return tuple(map(float, values))


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing; copy tokenizer.json, tokenizer_config.json and special_tokens_map.json from the model's original "
            "repository, such as deepseek-ai/Janus-1.3B"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
        # Saved by some trainers; at inference they would cut or fill every prompt.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(explain_unreadable(path, error, "fetch it again")) from None


def _text(stated: object, default: str, key: str) -> str:
    """A token as configs state it: a string, an object with its content, or nothing."""
    text = stated.get("content") if isinstance(stated, dict) else stated
    if text is None or text == "":
        return default
    if not isinstance(text, str):
        raise CheckpointError(f"{key} is {stated!r:.60}; expected a token's text")
    return text


def _id(tokenizer: Tokenizer, text: str, path: Path) -> int:
    number = tokenizer.token_to_id(text)
    if number is None:
        raise CheckpointError(f"{path} has no token {text!r}, which Janus needs; is it this model's tokenizer?")
    return int(number)
