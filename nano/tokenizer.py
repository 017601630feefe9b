"""A small byte-level BPE with the special tokens of the family, and the templates of Janus-Pro and JanusFlow."""

import json
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from janus_export.checkpoint.text_side import SYSTEM
from janus_runtime.bundle.manifest import Template
from janus_runtime.prompt import render
from nano.language import every_text

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
BEGIN, END, PLACEHOLDER = "<begin_of_image>", "<end_of_image>", "<image_placeholder>"
USER, ASSISTANT = "<|User|>", "<|Assistant|>"
TEMPLATE = Template(SYSTEM, USER, ASSISTANT, "\n\n", "\n\n", EOS)
FLOW_TEMPLATE = replace(TEMPLATE, user="User", assistant="Assistant")
VOCAB_SIZE = 576


def train_tokenizer(folder: Path, template: Template = TEMPLATE) -> None:
    """Every word of the scenes' language, of the system text and of the roles is a token; Pro's roles are special ones."""
    texts = [between.format(text) for text in every_text() for between in (": {}\n\n", "\n{}\n\n")]
    special = [BOS, EOS, PAD, BEGIN, END, PLACEHOLDER]
    roles = [template.user, template.assistant]
    if template == TEMPLATE:
        special += roles
    else:
        texts += [role + ":" for role in roles] * 100
    write_tokenizer(folder, texts + [template.system + "\n\n"] * 100, tuple(special), VOCAB_SIZE)


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

    def __init__(self, folder: Path, image_tokens: int, template: Template = TEMPLATE) -> None:
        self._template = template
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._image_tokens = image_tokens
        self.bos, self.eos, self.pad, self.begin, self.end, self.placeholder = (
            self._tokenizer.token_to_id(text) for text in (BOS, EOS, PAD, BEGIN, END, PLACEHOLDER)
        )

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids)
        return text

    def drawing(self, caption: str, blank: bool = False) -> list[int]:
        """A prompt that draws; blank: all between its first and last id is pad."""
        ids = [self.bos, *self.encode(self._turn(caption)), self.begin]
        return [ids[0], *[self.pad] * (len(ids) - 2), ids[-1]] if blank else ids

    def conversation(self, asked: list[tuple[str, str]]) -> tuple[list[int], list[bool]]:
        """One picture and the questions about it -> ids, and which of them are said by the model."""
        block = f"{BEGIN}{PLACEHOLDER * self._image_tokens}{END}\n"
        ids, said = [self.bos], [False]
        for index, (question, answer) in enumerate(asked):
            opening = self.encode(self._turn(question) if index else self._turn(block + question, self._template.system))
            closing = [*self.encode(f" {answer}"), self.eos]
            ids += [*opening, *closing]
            said += [False] * len(opening) + [True] * len(closing)
        return ids, said

    def _turn(self, text: str, system: str = "") -> str:
        return render(self._template, [(self._template.user, text), (self._template.assistant, "")], system)
