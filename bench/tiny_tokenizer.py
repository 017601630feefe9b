"""A small byte-level BPE with Janus's special tokens, for checkpoints that come without a tokenizer."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<begin_of_image>",
    "<end_of_image>",
    "<image_placeholder>",
)
ROLES = ("<|User|>", "<|Assistant|>")
_TEXT = ["a red circle left of the blue square", "what colour is the triangle in this picture?", "describe the image"]


def write_tokenizer(folder: Path, vocab_size: int, roles: bool = True) -> None:
    """tokenizer.json and special_tokens_map.json with at most `vocab_size` ids; ids 0 to 5 are `SPECIAL`'s."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        # Room is left for tags that an exporter may have to add.
        vocab_size=min(vocab_size, 320) - 16,
        special_tokens=[*SPECIAL, *(ROLES if roles else ())],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "eos_token", "pad_token"), SPECIAL, strict=False))
    (folder / "special_tokens_map.json").write_text(json.dumps(names, ensure_ascii=False))
