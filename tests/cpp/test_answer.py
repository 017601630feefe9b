"""The same question and the same seed: the same text as the Python runtime gives."""

import numpy as np
import pytest
from PIL import Image

import janus_runtime
from janus_runtime.sampling.sampler import Sampler
from testing.c_library import CancelToken, CError, c_image

QUESTIONS = ["What colour is the circle?", "How many things are there?", "  What is left of the triangle?  ", "Was ist das? 🤔"]


def read(answer):
    return "".join(answer)


@pytest.fixture(scope="module")
def drawn(nano):
    _, janus = nano
    return [picture.image for picture in janus.generate(["a red circle", "two small green crosses on black"], seed=7)]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.0, "seed": 3}, {"temperature": 2.0, "top_k": 20, "top_p": 0.9, "seed": 8}], ids=str
)
def test_answers_of_janus_nano(nano, drawn, question, settings):
    model, janus = nano
    for pictures in ([drawn[0]], drawn):
        answer = janus.describe(pictures, question, max_tokens=30, **settings)
        text = read(answer)
        said = model.describe([c_image(np.asarray(picture)) for picture in pictures], question, max_tokens=30, **settings)
        assert (said.text, said.text_ids, said.stop) == (text, answer.text_ids, answer.stop)


@pytest.mark.parametrize(("name", "precision"), [("tiny", "fp16"), ("tiny", "int8"), ("small", "int4"), ("tiny-flow", "fp32")])
def test_other_bundles(load_both, name, precision):
    model, janus = load_both(name, precision)
    pixels = np.random.default_rng(1).integers(0, 256, (90, 61, 3), np.uint8)
    answer = janus.describe(Image.fromarray(pixels), "What is this?", max_tokens=40, temperature=1.0, seed=2)
    text = read(answer)
    said = model.describe([c_image(pixels)], "What is this?", max_tokens=40, temperature=1.0, seed=2)
    assert (said.text, said.text_ids, said.stop) == (text, answer.text_ids, answer.stop)


def test_a_conversation_of_several_turns(nano, drawn):
    model, janus = nano
    pictures = [np.asarray(picture) for picture in drawn]
    with model.chat() as ours, janus.chat() as theirs:
        for turn in range(4):
            images, question, settings = pictures[: turn % 3], QUESTIONS[turn], {"temperature": float(turn > 1), "seed": turn}
            sampler = Sampler(temperature=settings["temperature"])
            answer = theirs.say(question, [Image.fromarray(each) for each in images], max_tokens=5, sampler=sampler, seed=turn)
            text = read(answer)
            said = ours.say(question, [c_image(each) for each in images], max_tokens=5, **settings)
            assert (said.text, said.text_ids, said.stop) == (text, answer.text_ids, answer.stop)


def test_a_turn_that_was_stopped_or_refused(nano, drawn, library):
    """The conversation goes on as Python's does."""
    model, janus = nano
    image = np.asarray(drawn[0])
    with model.chat() as ours, janus.chat() as theirs:
        with pytest.raises(CError, match="the prompt is empty"):
            ours.say(" ")
        cancelled = CancelToken(library)
        cancelled.cancel()
        with pytest.raises(CError, match="cancelled after 0 tokens"):
            ours.say("What is this?", cancel=cancelled.handle)
        answer = theirs.say("What is this?", Image.fromarray(image), max_tokens=12, sampler=Sampler(temperature=1.0), seed=4)
        first = next(answer)
        answer.close()
        with pytest.raises(CError, match="cancelled after 1 token"):
            ours.say("What is this?", [c_image(image)], max_tokens=12, temperature=1.0, seed=4, on_text=lambda text: text != first)
        assert ours.say("And now?", max_tokens=8).text == read(theirs.say("And now?", max_tokens=8))


@pytest.mark.parametrize(
    ("question", "settings", "code"),
    [
        ("", {}, "prompt"),
        ("a <image_placeholder>", {}, "prompt"),
        ("why " * 4000, {}, "conversation_full"),
        ("why", {"temperature": -1.0}, "value"),
        ("why", {"top_p": 1.5}, "value"),
        ("why", {"max_tokens": -3}, "value"),
    ],
)
def test_what_python_refuses_is_refused_in_the_same_words(load_both, question, settings, code):
    model, janus = load_both("tiny")
    pixels = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises((ValueError, janus_runtime.JanusError)) as theirs:
        janus.describe(Image.fromarray(pixels), question, **settings)
    with pytest.raises(CError) as ours:
        model.describe([c_image(pixels)], question, **settings)
    assert (str(ours.value), ours.value.code) == (str(theirs.value), code)
    with pytest.raises(CError, match="describe got no picture; expected at least one"):
        model.describe([], "why")
