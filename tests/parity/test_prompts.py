"""Prompt ids of the runtime against strings written out here from the published template."""

import hashlib

import pytest

SYSTEM_SHA256 = "790f4cfc05523b0eecbc061d3b2a427d84204164119832ccffb22deaae07cb29"
TEXTS = ("a red fox in the snow", "  stripped \n", "two\n\nlines: one, two", "été — 画像 🦊")


@pytest.mark.parametrize("text", TEXTS)
def test_generation(runtime, reference, text):
    expected = reference.generation_ids(text)
    assert expected[0] == reference.special.bos
    assert expected[-1] == reference.special.begin_of_image
    assert runtime._prompter.image(text).tolist() == expected.tolist()


@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("text", TEXTS)
def test_question(runtime, reference, text, images):
    expected = reference.question_ids(text, images)
    got = runtime._prompter.question(text, images)
    assert got.tolist() == expected.tolist()
    count = reference.model.config.vision_config.num_image_tokens
    assert (got == reference.special.image_placeholder).sum() == images * count
    assert (got == reference.special.begin_of_image).sum() == (got == reference.special.end_of_image).sum() == images


FORMS = {"tiny": ("janus-pro", "<|User|>", "<|Assistant|>"), "small": ("janus", "User", "Assistant")}


def test_strings_of_the_published_forms(runtime, model):
    """Once in full, so that the ids above are known to come from the right strings."""
    family, user, assistant = FORMS[model]
    assert runtime.manifest.family == family
    assert runtime._prompter.image_string("a fox") == f"{user}: a fox\n\n{assistant}:<begin_of_image>"
    system, _, rest = runtime._prompter.question_string("What is it?", 1).partition("\n\n")
    assert hashlib.sha256(system.encode()).hexdigest() == SYSTEM_SHA256, f"not the published system text: {system!r}"
    assert rest == f"{user}: <image_placeholder>\nWhat is it?\n\n{assistant}:"


def test_special_ids_are_the_checkpoints(runtime, reference):
    got = {name: token.id for name, token in vars(runtime.manifest.tokens).items()}
    assert got == vars(reference.special)
