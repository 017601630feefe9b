"""Tokenizer, special tokens and preprocessing settings as each published checkpoint states them."""

import hashlib
import json
import shutil

import pytest
import tokenizers
from tokenizers import Tokenizer

from janus_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from janus_export.checkpoint.text_side import SYSTEM, read_image_input, read_text_side
from janus_export.errors import CheckpointError
from janus_runtime.bundle.manifest import ImageInput
from janus_runtime.prompt import render
from testing.flow_layout import FLOW_MODELS
from testing.published_layouts import MODELS
from testing.tiny_tokenizer import write_tokenizer


@pytest.fixture
def folder(checkpoints, tmp_path):
    return shutil.copytree(checkpoints("tiny"), tmp_path / "copy")


def read(folder):
    return read_text_side(open_checkpoint(str(folder)))


def edit(path, change):
    raw = json.loads(path.read_text()) if path.is_file() else {}
    change(raw)
    path.write_text(json.dumps(raw))


def test_the_system_text_is_the_published_one():
    assert len(SYSTEM) == 186
    assert hashlib.sha256(SYSTEM.encode()).hexdigest() == "790f4cfc05523b0eecbc061d3b2a427d84204164119832ccffb22deaae07cb29"


def test_pro_is_told_by_its_role_tokens(folder):
    _, tokens, template, family = read(folder)
    assert (family, template.user, template.assistant) == ("janus-pro", "<|User|>", "<|Assistant|>")
    assert tokens.bos.id == 0 and tokens.image_placeholder.id == 5 and template.after_assistant == tokens.eos.text


def test_1_3b_has_plain_roles(folder):
    write_tokenizer(folder, 320, roles=False)
    _, _, template, family = read(folder)
    assert (family, template.user, template.assistant) == ("janus", "User", "Assistant")


def test_published_pro_files(shared_data, checkpoints, tmp_path):
    source = shutil.copytree(checkpoints("tiny"), tmp_path / "copy")
    edit(source / "config.json", lambda raw: (raw["text_config"].update(vocab_size=102400), raw.update(image_token_id=100581)))
    for path in (shared_data / "janus-pro-text").glob("*.json"):
        shutil.copy(path, source)
    edit(source / "preprocessor_config.json", lambda raw: raw.update(image_size=64))
    _, tokens, _, family = read(source)
    ids = {name: getattr(tokens, name).id for name in tokens.__dataclass_fields__}
    assert family == "janus-pro"
    assert ids == {
        "bos": 100000, "eos": 100001, "pad": 100002, "begin_of_image": 100003, "end_of_image": 100590, "image_placeholder": 100581,
    }  # fmt: skip
    got = read_image_input(open_checkpoint(str(source)))
    assert got == ImageInput(
        size=64, min_size=14, mean=(0.5,) * 3, std=(0.5,) * 3, background=(127,) * 3, num_tokens=16, includes_begin=False
    )


def janus_1_3b(published, folder):
    """A tokenizer numbered as Janus-1.3B's: pad and begin-of-image thirteen later than Pro's, no placeholder, no role tokens."""
    raw = json.loads((published / "tokenizer.json").read_text())
    names = {100015: "<｜▁pad▁｜>", 100016: "<begin_of_image>", 100017: "<end_of_image>"}
    kept = [token for token in raw["added_tokens"] if token["id"] <= 100580]
    for token in kept[2:]:
        token["content"] = names.get(token["id"], f"[unused{token['id']}]")
    raw["added_tokens"] = kept
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    (folder / "special_tokens_map.json").write_text(json.dumps({
        "bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>", "pad_token": "<｜▁pad▁｜>",
    }))  # fmt: skip


def test_janus_1_3b(shared_data, checkpoints, tmp_path):
    source = shutil.copytree(checkpoints("tiny", "original"), tmp_path / "copy")
    janus_1_3b(shared_data / "janus-pro-text", source)
    edit(source / "config.json", lambda raw: raw["language_config"].update(vocab_size=102400))
    tokenizer, tokens, template, family = read(source)
    ids = {name: getattr(tokens, name).id for name in tokens.__dataclass_fields__}
    assert family == "janus"
    assert ids == {
        "bos": 100000, "eos": 100001, "pad": 100015, "begin_of_image": 100016, "end_of_image": 100017, "image_placeholder": 100581,
    }  # fmt: skip
    drawn = render(template, [(template.user, " a fox "), (template.assistant, "")]) + tokens.begin_of_image.text
    assert drawn == "User: a fox\n\nAssistant:<begin_of_image>"
    asked = render(template, [(template.user, "<image_placeholder>\nWhat is it?"), (template.assistant, "")], SYSTEM)
    assert asked == f"{SYSTEM}\n\nUser: <image_placeholder>\nWhat is it?\n\nAssistant:"
    encoded = tokenizer.encode(asked, add_special_tokens=False).ids
    assert encoded.count(100581) == 1 and max(encoded) == 100581, "roles are plain words"
    assert tokenizer.decode(encoded, skip_special_tokens=False) == asked


def test_janus_1_3b_as_first_published_has_no_pad_in_its_settings(shared_data, checkpoints, tmp_path):
    """The tokenizer has the token all the same, and the original processor looks it up by its text."""
    source = shutil.copytree(checkpoints("tiny", "original"), tmp_path / "copy")
    janus_1_3b(shared_data / "janus-pro-text", source)
    edit(source / "config.json", lambda raw: raw["language_config"].update(vocab_size=102400))
    edit(source / "special_tokens_map.json", lambda raw: raw.pop("pad_token"))
    assert read(source)[1].pad.id == 100015


@pytest.mark.parametrize("model", ["tiny", "tiny-flow"])
@pytest.mark.parametrize("there", [[], ["begin_of_image"], ["image_placeholder"], ["generation"], ["end_of_image", "generation"]], ids=str)
def test_missing_tags_are_numbered_in_the_originals_order(folder, model, there):
    """JanusFlow adds a tag for generation too, between the placeholder and the two of images."""
    texts = {
        "image_placeholder": "<picture>", "generation": "<｜begin▁of▁generation｜>", "begin_of_image": "<pic>", "end_of_image": "</pic>",
    }  # fmt: skip
    (folder / "processor_config.json").write_text(json.dumps({
        "image_tag": texts["image_placeholder"], "image_start_tag": texts["begin_of_image"], "image_end_tag": texts["end_of_image"],
    }))  # fmt: skip
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([texts[name] for name in there])
    tokenizer.save(str(folder / "tokenizer.json"))
    edit(folder / "config.json", lambda raw: raw.pop("image_token_id"))
    expected, free = {}, tokenizer.get_vocab_size()
    for name, text in texts.items():
        if name == "generation" and model == "tiny":
            continue
        expected[name] = tokenizer.token_to_id(text)
        if expected[name] is None:
            expected[name], free = free, free + 1
    opened, tokens, _, _ = read_text_side(Checkpoint("made", None, folder, {**MODELS, **FLOW_MODELS}[model], {}))
    assert {name: opened.token_to_id(texts[name]) for name in expected} == expected
    assert (tokens.begin_of_image.id, tokens.end_of_image.id) == (expected["begin_of_image"], expected["end_of_image"])


def test_flows_generation_tag_may_be_another(folder):
    (folder / "processor_config.json").write_text(json.dumps({"image_gen_tag": "<draw>"}))
    tokenizer = read_text_side(Checkpoint("made", None, folder, FLOW_MODELS["tiny-flow"], {}))[0]
    assert tokenizer.token_to_id("<draw>") is not None and tokenizer.token_to_id("<｜begin▁of▁generation｜>") is None


def test_a_tag_that_the_tokenizer_lacks_is_added_as_at_load_of_the_original(folder):
    edit(folder / "processor_config.json", lambda raw: raw.update(image_tag="<picture>"))
    edit(folder / "config.json", lambda raw: raw.pop("image_token_id"))
    tokenizer, tokens, _, _ = read(folder)
    assert tokens.image_placeholder.text == "<picture>"
    assert tokens.image_placeholder.id == tokenizer.get_vocab_size(with_added_tokens=True) - 1
    assert tokenizer.encode("a<picture>b", add_special_tokens=False).ids.count(tokens.image_placeholder.id) == 1


def test_no_pad_token_means_the_end_token(folder):
    edit(folder / "special_tokens_map.json", lambda raw: raw.update(pad_token="<absent>"))
    _, tokens, _, _ = read(folder)
    assert tokens.pad == tokens.eos


def test_token_entries_may_be_objects(folder):
    edit(folder / "special_tokens_map.json", lambda raw: raw.update(eos_token={"content": raw["eos_token"], "lstrip": False}))
    assert read(folder)[1].eos.id == 1


def test_a_tokenizer_larger_than_the_model(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([f"<extra {i}>" for i in range(100)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"has ids up to \d+, the model embeds 320; they do not belong together"):
        read(folder)


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_tokenizer(folder, content):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="tokenizer.json is not a tokenizer"):
        read(folder)


def test_a_tokenizer_that_is_newer_than_the_library(folder):
    edit(folder / "tokenizer.json", lambda raw: raw.update(normalizer={"type": "OneOfNextYear"}))
    with pytest.raises(
        CheckpointError, match=rf"tokenizers {tokenizers.__version__}, installed here, cannot read .*tokenizer.json \(.*\)"
    ) as error:
        read(folder)
    assert "pip install --upgrade tokenizers" in str(error.value) and "is not a tokenizer" not in str(error.value)


def test_a_tokenizer_of_another_family(folder):
    edit(folder / "special_tokens_map.json", lambda raw: raw.update(bos_token="<s>"))
    with pytest.raises(CheckpointError, match="tokenizer.json has no token '<s>', which Janus needs"):
        read(folder)


@pytest.mark.parametrize("place", ["preprocessor_config.json", "processor_config.json"])
def test_hf_preprocessing_settings(folder, place):
    """transformers 5 nests them in processor_config.json; before, they had a file of their own."""
    settings = {"size": {"height": 64, "width": 64}, "image_mean": [0.4, 0.5, 0.6], "rescale_factor": 1 / 255, "resample": 3}
    (folder / "preprocessor_config.json").unlink()
    (folder / place).write_text(json.dumps(settings if place.startswith("pre") else {"image_processor": settings}))
    checkpoint = open_checkpoint(str(folder))
    got = read_image_input(checkpoint)
    assert checkpoint.notes == ()
    assert got.mean == (0.4, 0.5, 0.6) and got.background == (102, 127, 153) and got.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 384}, "scales to 384, the model takes 64"),
        ({"do_normalize": False}, "do_normalize false, a mistake"),
        ({"do_rescale": False}, "do_rescale False; this export builds True only"),
        ({"resample": 2}, "resample 2; this export builds 3 only"),
        ({"rescale_factor": 1 / 127}, "rescale_factor 0.0078.*; this export builds 1/255 only"),
        ({"image_mean": [0.5]}, r"image_mean \[0.5\]; expected 3 numbers"),
        ({"image_mean": 0.5}, "image_mean 0.5; expected 3 numbers"),
        ({"image_std": [0.5, 0.5, "x"]}, "image_std .*; expected 3 numbers"),
        ({"background_color": [127.5] * 3}, "background .*; expected whole numbers in range"),
        ({"background_color": [300] * 3}, "expected whole numbers in range"),
        ({"min_size": "14"}, "min_size '14'; expected 1 number"),
        ({"min_size": 0}, "min_size 0 and background"),
        ({"min_size": 14.5}, "min_size 14.5 and background"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std .*, by which pixels are divided; expected numbers above 0"),
        ({"image_mean": [0.5, float("nan"), 0.5]}, "image_mean .*; expected 3 numbers"),
        ({"rescale_factor": float("nan")}, "rescale_factor nan; expected 1 number"),
        ({"min_size": float("inf")}, "min_size inf; expected 1 number"),
    ],
)
def test_preprocessing_that_does_not_fit(folder, change, message):
    edit(folder / "preprocessor_config.json", lambda raw: raw.update(change))
    with pytest.raises(CheckpointError, match=message):
        read_image_input(open_checkpoint(str(folder)))


def test_truncation_and_padding_saved_by_a_trainer_are_left_out(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(12)
    tokenizer.enable_padding(length=16, pad_id=2)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert len(read(folder)[0].encode("a b c d e f g h i j k l m n o p q").ids) > 16


def test_an_image_token_that_is_another(folder):
    edit(folder / "config.json", lambda raw: raw.update(image_token_id=9))
    with pytest.raises(CheckpointError, match="config.json says image_token_id 9, .* gives <image_placeholder> the id 5"):
        read(folder)


@pytest.mark.parametrize(("file", "change"), [("processor_config.json", {"image_tag": 5}), ("special_tokens_map.json", {"bos_token": 1})])
def test_a_token_that_is_no_text(folder, file, change):
    edit(folder / file, lambda raw: raw.update(change))
    with pytest.raises(CheckpointError, match="expected a token's text"):
        read(folder)
