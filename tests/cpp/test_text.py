"""Ids and text: the `tokenizers` library's, on published vectors and on strings that nobody would type."""

import json
import random
import shutil
import unicodedata

import pytest
from tokenizers import Tokenizer

from janus_runtime.bundle.bundle import NANO
from testing.c_library import CError, Model

CATEGORIES: dict[str, list[str]] = {}
for code in range(0x110000):
    if not 0xD800 <= code <= 0xDFFF:
        CATEGORIES.setdefault(unicodedata.category(chr(code)), []).append(chr(code))


def fuzz(seed, tokens):
    """A string of pieces of every kind."""
    rng = random.Random(seed)
    pieces = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.5:
            pieces.append("".join(rng.choices(CATEGORIES[rng.choice(list(CATEGORIES))], k=rng.randint(1, 5))))
        elif kind < 0.6:
            pieces.append(rng.choice(tokens))
        elif kind < 0.7:
            token = rng.choice(tokens)
            pieces.append(token[: rng.randint(1, len(token))])
        elif kind < 0.8:
            pieces.append(
                rng.choice(["\r\n", "  ", "\t", "\u3000", "\x1f", "\u200b", "\u0301", "👩‍👩‍👧", "'s", " don't", "１２３", "٣٤", "½"])
            )
        else:
            pieces.append("".join(rng.choices("abcdefghijklmnopqrstuvwxyz ABC .,!?0123456789", k=rng.randint(1, 30))))
    return "".join(pieces)


@pytest.fixture(scope="module", params=["janus-nano", "janus-pro"])
def both(request, library, onnxruntime_library, tmp_path_factory, shared_data):
    """(C++, the library) of one tokenizer. The published one takes janus-nano's bundle, with its own ids of the special tokens."""
    if request.param == "janus-nano":
        tokenizer, folder = NANO / "tokenizer.json", NANO
    else:
        tokenizer = shared_data / "janus-pro-text" / "tokenizer.json"
        folder = published_bundle(tokenizer, tmp_path_factory.mktemp("published") / "bundle")
    with Model(library, folder, onnxruntime_library) as model:
        reference = Tokenizer.from_file(str(tokenizer))
        reference.no_truncation()
        reference.no_padding()
        yield model, reference


def published_bundle(tokenizer, folder):
    shutil.copytree(NANO, folder, copy_function=shutil.copyfile)
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    raw = json.loads((folder / "manifest.json").read_text())
    raw["files"]["tokenizer.json"]["bytes"] = tokenizer.stat().st_size
    found = Tokenizer.from_file(str(tokenizer))
    raw["language_model"]["vocab_size"] = 102400
    for name, graph in raw["graphs"].items():
        for tensor in [*graph["inputs"].values(), *graph["outputs"].values()] if name.startswith("text_") else ():
            tensor["shape"] = [102400 if size == 576 else size for size in tensor["shape"]]
    texts = {"bos": "<｜begin▁of▁sentence｜>", "eos": "<｜end▁of▁sentence｜>", "pad": "<｜▁pad▁｜>", "begin_of_image": "<begin_of_image>",
             "end_of_image": "<end_of_image>", "image_placeholder": "<image_placeholder>"}  # fmt: skip
    raw["tokens"] = {name: {"text": text, "id": found.token_to_id(text)} for name, text in texts.items()}
    (folder / "manifest.json").write_text(json.dumps(raw))
    return folder


def test_published_vectors(both, shared_data):
    model, reference = both
    for vector in json.loads((shared_data / "janus-pro-text" / "vectors.json").read_text()):
        expected = reference.encode(vector["text"], add_special_tokens=False).ids
        assert model.encode(vector["text"].encode()) == expected
        assert expected == vector["ids"] or reference.get_vocab_size() < 1000


@pytest.mark.parametrize("count", [2000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_strings_of_every_category(both, count):
    model, reference = both
    tokens = [token.content for token in reference.get_added_tokens_decoder().values()]
    for seed in range(count):
        text = fuzz(seed, tokens).replace("\0", "")
        expected = reference.encode(text, add_special_tokens=False).ids
        assert model.encode(text.encode()) == expected, (seed, text)


def test_text_of_any_ids(both):
    model, reference = both
    rng = random.Random(5)
    for _ in range(500):
        ids = [rng.randrange(reference.get_vocab_size() + 20) for _ in range(rng.randint(0, 30))]
        assert model.decode(ids) == reference.decode(ids, skip_special_tokens=True).partition("\0")[0]


@pytest.mark.parametrize("text", [b"\xff", b"a\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"cut \xe2\x82"])
def test_what_is_no_utf8(nano, text):
    model, _ = nano
    with pytest.raises(CError, match="the text is not valid UTF-8; save or type it again as UTF-8") as raised:
        model.generate([text])
    assert raised.value.code == "prompt"
    with pytest.raises(CError, match="the text is not valid UTF-8"):
        model.encode(text)
