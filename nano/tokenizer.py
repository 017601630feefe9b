"""A small byte-level BPE with the special tokens and the template of Janus-Pro."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from janus_export.text_side import SYSTEM
from janus_runtime.manifest import Template
from janus_runtime.prompt import render

from .language import every_text

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
BEGIN, END, PLACEHOLDER = "<begin_of_image>", "<end_of_image>", "<image_placeholder>"
USER, ASSISTANT = "<|User|>", "<|Assistant|>"
TEMPLATE = Template(SYSTEM, USER, ASSISTANT, "\n\n", "\n\n", EOS)
VOCAB_SIZE = 576


def train_tokenizer(folder: Path) -> None:
    """janus-nano's: every word of the scenes' language and of the system text is a token."""
    texts = [between.format(text) for text in every_text() for between in (": {}\n\n", "\n{}\n\n")]
    special = (BOS, EOS, PAD, BEGIN, END, PLACEHOLDER, USER, ASSISTANT)
    write_tokenizer(folder, texts + [SYSTEM + "\n\n"] * 100, special, VOCAB_SIZE)


def write_tokenizer(folder: Path, texts: list[str], special: tuple[str, ...], vocab_size: int) -> None:
    """Writes tokenizer.json, a byte-level BPE of at most `vocab_size` ids, special ones first, and special_tokens_map.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    (folder / "special_tokens_map.json").write_text(json.dumps(names, ensure_ascii=False, indent=1))


class Text:
    """Ids of both tasks' sequences, as the runtime builds them."""

    def __init__(self, folder: Path, image_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._image_tokens = image_tokens
        self.bos, self.eos, self.pad, self.begin, self.end, self.placeholder = (
            self._tokenizer.token_to_id(text) for text in (BOS, EOS, PAD, BEGIN, END, PLACEHOLDER)
        )

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def drawing(self, caption: str, blank: bool = False) -> list[int]:
        """A prompt that draws; blank: all between its first and last id is pad."""
        ids = [self.bos, *self.encode(render(TEMPLATE, [(USER, caption), (ASSISTANT, "")])), self.begin]
        return [ids[0], *[self.pad] * (len(ids) - 2), ids[-1]] if blank else ids

    def conversation(self, asked: list[tuple[str, str]]) -> tuple[list[int], list[bool]]:
        """One picture and the questions about it -> ids, and which of them are said by the model."""
        block = f"{BEGIN}{PLACEHOLDER * self._image_tokens}{END}\n"
        ids, said = [self.bos], [False]
        for index, (question, answer) in enumerate(asked):
            user = (USER, question if index else block + question)
            opening = self.encode(render(TEMPLATE, [user, (ASSISTANT, "")], "" if index else SYSTEM))
            closing = [*self.encode(f" {answer}"), self.eos]
            ids += [*opening, *closing]
            said += [False] * len(opening) + [True] * len(closing)
        return ids, said
