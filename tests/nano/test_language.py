"""What is said of a scene is true, and a caption of a held-out scene names all that makes it new."""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nano.language import NUMBERS, caption, describe, questions
from nano.scenes import COLOURS, SHAPES, sample

seeds = st.integers(0, 2**32)


def things_named(text):
    return sorted(re.findall(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})", text))


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_captions_name_what_is_there(seed):
    rng = np.random.default_rng(seed)
    scene = sample(rng, held_out=True)
    text = caption(scene, rng, new=True)
    there = sorted((thing.colour, thing.shape) for thing in scene.things)
    if scene.kind == "many":
        assert f"{NUMBERS[len(there)]} " in text.lower() and things_named(text) == there[:1]
    else:
        assert things_named(text) == there
    for colour in ("white", "black"):
        assert (colour in text) <= (scene.background == colour)
    # Articles agree, as users write.
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text, re.I)


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_answers_are_true(seed):
    rng = np.random.default_rng(seed)
    scene = sample(rng)
    asked = questions(scene, rng, 5)
    assert len({question for question, _ in asked}) == 5
    colours, shapes = ([getattr(thing, name) for thing in scene.things] for name in ("colour", "shape"))
    for question, answer in asked:
        question = question.replace("color", "colour")
        if "background" in question:
            assert answer == scene.background
        elif match := re.match(r"How many (\w+?)(?:e?s)?(?: are there)?\?", question):
            noun = match[1].removesuffix("e")
            assert answer == NUMBERS[len(shapes) if noun in ("thing", "shap") else sum(shape.startswith(noun) for shape in shapes)]
        elif match := re.match(r"Is there an? (\w+) (\w+)\?", question):
            assert answer == ("yes" if (match[1], match[2]) in zip(colours, shapes, strict=True) else "no")
        elif match := re.match(r"(?:What|Which) colour is the (\w+)\?", question):
            assert answer == colours[shapes.index(match[1])] and shapes.count(match[1]) == 1
        elif match := re.match(r"What (?:shape )?is the (\w+) thing\?", question):
            assert answer == shapes[colours.index(match[1])] and colours.count(match[1]) == 1
        elif question.startswith(("Describe", "What is in", "What is this")) and " the middle" not in question:
            assert answer == describe(scene)


def test_relations_are_asked_from_both_sides():
    rng = np.random.default_rng(0)
    scene = sample(rng, kind="pair")
    asked = dict(pair for _ in range(200) for pair in questions(scene, rng, 3))
    neighbours = {
        answer for question, answer in asked.items() if re.match(r"What is .*(left|right|above|over|below|under|beneath)", question)
    }
    assert len(neighbours) == 2
