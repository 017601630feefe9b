"""A small byte-level BPE with Janus's special tokens, for checkpoints that come without a tokenizer."""

from pathlib import Path

from nano.tokenizer import ASSISTANT, BEGIN, BOS, END, EOS, PAD, PLACEHOLDER, USER
from nano.tokenizer import write_tokenizer as write_bpe

SPECIAL = (BOS, EOS, PAD, BEGIN, END, PLACEHOLDER)
ROLES = (USER, ASSISTANT)
_TEXT = ["a red circle left of the blue square", "what colour is the triangle in this picture?", "describe the image"]


def write_tokenizer(folder: Path, vocab_size: int, roles: bool = True) -> None:
    """tokenizer.json and special_tokens_map.json with at most `vocab_size` ids; ids 0 to 5 are `SPECIAL`'s."""
    # Room is left for tags that an exporter may have to add.
    write_bpe(folder, _TEXT, (*SPECIAL, *(ROLES if roles else ())), min(vocab_size, 320) - 16)
