"""Prompt strings, ids, and where pictures go. Exact strings are the published processor's."""

import dataclasses
import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from janus_runtime.bundle.bundle import NANO
from janus_runtime.bundle.manifest import Manifest, Token, Tokens
from janus_runtime.errors import BundleError, PromptError
from janus_runtime.prompt import Prompter, render, splice


@pytest.fixture(scope="module")
def prompter(tiny):
    return Prompter(Manifest.load(tiny), tiny / "tokenizer.json")


@pytest.fixture(scope="module")
def published(tiny, shared_data):
    """The published vocabulary and ids of Janus-Pro-1B, in the tiny model's manifest."""
    bar, low = "\uff5c", "\u2581"
    texts = {
        "bos": (f"<{bar}begin{low}of{low}sentence{bar}>", 100000),
        "eos": (f"<{bar}end{low}of{low}sentence{bar}>", 100001),
        "pad": (f"<{bar}{low}pad{low}{bar}>", 100002),
        "begin_of_image": ("<begin_of_image>", 100003),
        "image_placeholder": ("<image_placeholder>", 100581),
        "end_of_image": ("<end_of_image>", 100590),
    }
    tokens = Tokens(**{name: Token(*value) for name, value in texts.items()})
    image_input = dataclasses.replace(Manifest.load(tiny).image_input, num_tokens=576)
    manifest = dataclasses.replace(Manifest.load(tiny), tokens=tokens, image_input=image_input)
    return Prompter(manifest, shared_data / "janus-pro-text" / "tokenizer.json")


SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


def test_generation_string(prompter):
    assert prompter.image_string("  a red fox ") == "<|User|>: a red fox\n\n<|Assistant|>:<begin_of_image>"


def test_understanding_string(prompter):
    expected = f"{SYSTEM}\n\n<|User|>: <image_placeholder>\nWhat is this?\n\n<|Assistant|>:"
    assert prompter.question_string("What is this? ", 1) == expected


def test_several_pictures_and_a_later_turn(prompter):
    expected = "<|User|>: <image_placeholder>\n<image_placeholder>\nSame?\n\n<|Assistant|>:"
    assert prompter.question_string("Same?", 2, first=False) == expected


def test_janus_1_3b_has_other_roles(prompter):
    template = dataclasses.replace(prompter.template, user="User", assistant="Assistant")
    assert render(template, [("User", "hi"), ("Assistant", "")]) == "User: hi\n\nAssistant:"


def test_separators_alternate(prompter):
    template = prompter.template
    messages = [("U", "a"), ("A", "b"), ("U", "c"), ("A", "")]
    assert render(template, messages, "S") == f"S\n\nU: a\n\nA: b{prompter.tokens.eos.text}U: c\n\nA:"


def test_published_vectors(published, shared_data):
    vectors = json.loads((shared_data / "janus-pro-text" / "vectors.json").read_text())
    assert len(vectors) == 46
    for vector in vectors:
        assert published.encode(vector["text"]) == vector["ids"], vector["text"]


def test_published_prompt_ids(published):
    words = published.encode("Hello, how are you?")
    assert words == [17464, 11, 946, 418, 340, 30]
    ids = published.image("Hello, how are you?").tolist()
    user, assistant = 100588, 100589
    # "Hello" follows a colon and a space here, so its first id is that of " Hello".
    assert ids[:2] == [100000, user] and ids[-3:] == [assistant, *published.encode(":"), 100003]
    assert ids[2:-3] == published.encode(": Hello, how are you?\n\n")


def test_bos_comes_once(published):
    assert published.image("x").tolist().count(100000) == 1
    assert published.question("x", 0).tolist().count(100000) == 1


def test_a_placeholder_becomes_578_ids(published):
    ids = published.question("What?", 2).tolist()
    assert ids.count(100581) == 2 * 576
    first = ids.index(100003)
    assert ids[first : first + 578] == [100003, *[100581] * 576, 100590]


def test_the_unconditional_twin_keeps_only_the_ends(prompter):
    ids = prompter.image("a red fox")
    twin = prompter.blank(ids)
    assert twin[0] == prompter.tokens.bos.id and twin[-1] == prompter.tokens.begin_of_image.id
    assert len(twin) == len(ids) and set(twin[1:-1].tolist()) == {prompter.tokens.pad.id}


texts = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=40).filter(lambda text: text.strip())


@given(texts)
def test_any_text_is_framed_the_same_way(text):
    prompter = test_any_text_is_framed_the_same_way.prompter
    if any(token in text for token in prompter._reserved):
        return
    string = prompter.image_string(text)
    assert string.startswith("<|User|>: ") and string.endswith("\n\n<|Assistant|>:<begin_of_image>")
    assert text.strip() in string
    ids = prompter.image(text)
    assert ids[0] == prompter.tokens.bos.id and ids[-1] == prompter.tokens.begin_of_image.id
    assert prompter.decode(ids.tolist()) == f": {text.strip()}\n\n:"


@pytest.fixture(autouse=True)
def _for_hypothesis(prompter):
    test_any_text_is_framed_the_same_way.prompter = prompter
    test_streamed_pieces_join_to_the_text.prompter = prompter


@given(texts)
def test_streamed_pieces_join_to_the_text(text):
    prompter = test_streamed_pieces_join_to_the_text.prompter
    ids = prompter.encode(text)
    stream = prompter.text_stream()
    pieces = [*map(stream.feed, ids), stream.end()]
    assert "".join(pieces) == prompter.decode(ids)
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


def test_a_character_cut_short_is_shown_at_the_end(prompter):
    ids = prompter.encode("né")[:-1]
    stream = prompter.text_stream()
    assert [stream.feed(token) for token in ids] == ["n", *[""] * (len(ids) - 1)]
    assert "n" + stream.end() == prompter.decode(ids) == "n\ufffd"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text(prompter, text):
    with pytest.raises(PromptError, match="the prompt is empty; expected some text"):
        prompter.image(text)


@pytest.mark.parametrize("token", ["<image_placeholder>", "<|User|>", "<\uff5cend\u2581of\u2581sentence\uff5c>"])
def test_reserved_tokens_are_refused(prompter, token):
    with pytest.raises(PromptError, match="the text holds the reserved token .*; take it out"):
        prompter.question(f"hello {token} there", 0)


def test_roles_are_reserved_even_if_the_tokenizer_calls_them_plain(tiny, tmp_path):
    raw = json.loads((tiny / "tokenizer.json").read_text())
    for token in raw["added_tokens"]:
        token["special"] = token["special"] and token["content"] != "<|User|>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(PromptError, match=r"reserved token <\|User\|>"):
        Prompter(Manifest.load(tiny), tmp_path / "tokenizer.json").image("x<|User|>: y")


def test_a_tokenizer_that_cuts_or_fills_does_neither(tiny, tmp_path, prompter):
    raw = json.loads((tiny / "tokenizer.json").read_text())
    raw["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    raw["padding"] = {
        "strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 2, "pad_type_id": 0, "pad_token": "x",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    other = Prompter(Manifest.load(tiny), tmp_path / "tokenizer.json")
    assert np.array_equal(other.image("a red fox left of a tree"), prompter.image("a red fox left of a tree"))


def test_a_prompt_over_the_limit(prompter):
    with pytest.raises(PromptError, match=r"prompt has \d+ tokens, this model takes 1008 beside a picture; shorten it"):
        prompter.image("fox " * 500)


def test_splice_writes_only_placeholder_rows():
    embeds = np.zeros((5, 2), np.float32)
    features = np.arange(1, 5, dtype=np.float32).reshape(1, 2, 2)
    splice(embeds, np.array([7, 5, 5, 7, 7]), [5], features)
    assert embeds.tolist() == [[0, 0], [1, 2], [3, 4], [0, 0], [0, 0]]


def test_a_tokenizer_of_another_model(tiny, tmp_path):
    manifest = Manifest.load(tiny)
    tokens = dataclasses.replace(manifest.tokens, pad=Token(manifest.tokens.pad.text, 77))
    with pytest.raises(BundleError, match="gives .* the id 2, the manifest 77; export again"):
        Prompter(dataclasses.replace(manifest, tokens=tokens), tiny / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="is not a tokenizer: .*; export the bundle again"):
        Prompter(manifest, tmp_path / "tokenizer.json")


def test_a_tokenizer_that_is_newer_than_the_library(tmp_path):
    manifest, raw = Manifest.load(NANO), json.loads((NANO / "tokenizer.json").read_text())
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**raw, "normalizer": {"type": "OneOfNextYear"}}))
    with pytest.raises(BundleError, match=rf"tokenizers {tokenizers.__version__}, installed here, cannot read .* \(.*\)") as error:
        Prompter(manifest, path)
    assert "pip install --upgrade tokenizers" in str(error.value) and "is not a tokenizer" not in str(error.value)
