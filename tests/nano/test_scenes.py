"""Scenes keep their own rules, and looking at their pictures by rule gives back what they were drawn from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nano.look import NOTHING, look, related
from nano.model import PATCH
from nano.scenes import COLOURS, OFF_CENTRE, PLACES, RADII, RELATIONS, SHAPES, SIDE, Scene, Thing, coverage, render, sample

scenes = st.builds(lambda seed, held_out: sample(np.random.default_rng(seed), held_out), st.integers(0, 2**32), st.booleans())


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_a_picture_shows_its_scene_and_nothing_else(scene):
    seen = look(render(scene))
    assert seen.background == scene.background
    assert seen.things == tuple(sorted(scene.things, key=lambda thing: (thing.x, thing.y)))


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_things_fill_whole_cells_inside_and_apart(scene):
    for index, thing in enumerate(scene.things):
        reach = RADII[thing.size]
        assert reach <= min(thing.x, thing.y) and max(thing.x, thing.y) <= SIDE - reach
        assert (thing.x - reach) % PATCH == (thing.y - reach) % PATCH == 0
        for other in scene.things[:index]:
            apart = max(abs(thing.x - other.x), abs(thing.y - other.y))
            assert apart >= reach + RADII[other.size] + PATCH


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_a_pair_is_in_its_relation_only(scene):
    if scene.kind == "pair":
        assert [name for name in RELATIONS if related(scene.things[0], name, scene.things[1])] == [scene.detail]


def test_a_place_is_nearer_than_every_other():
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = sample(rng, kind="one")
        offset = np.array([scene.things[0].x, scene.things[0].y]) - SIDE // 2
        distances = {place: float(np.linalg.norm(offset - OFF_CENTRE * np.array(way))) for place, way in PLACES.items()}
        nearest, second = sorted(distances, key=distances.__getitem__)[:2]
        assert nearest == scene.detail and distances[second] > 1.4 * distances[nearest]


def test_training_never_sees_what_is_held_out():
    rng = np.random.default_rng(0)
    trained, held_out = ({sample(rng, which).combination for _ in range(2000)} for which in (False, True))
    assert not trained & held_out
    assert len(held_out) > 40


def test_scenes_follow_from_the_seed():
    assert sample(np.random.default_rng(5)) == sample(np.random.default_rng(5))
    assert sample(np.random.default_rng(5)) != sample(np.random.default_rng(6))


@pytest.mark.parametrize("shape", SHAPES)
def test_areas(shape):
    expected = {"circle": np.pi * 144, "square": 576, "triangle": 288, "cross": 24 * 8.64 * 2 - 8.64**2}[shape]
    assert coverage(shape, 12, 32, 32).sum() == pytest.approx(expected, rel=0.03)


def test_what_is_not_known_is_unclear():
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    assert look(picture).things == ()
    picture[20:24, 5:60] = (0, 255, 255)
    (thing,) = look(picture).things
    assert (thing.colour, thing.shape) == (NOTHING, NOTHING)
    assert look(np.full((SIDE, SIDE, 3), (60, 0, 90), np.uint8)).background == NOTHING


def test_every_colour_is_told_from_the_others():
    scene = Scene("one", (Thing("red", "circle", "large", 32, 32),), "white", "in the middle")
    for colour in COLOURS:
        other = Scene("one", (Thing(colour, "circle", "large", 32, 32),), "white", "in the middle")
        assert look(render(other)).things[0].colour == colour
    assert look(render(scene)).things == scene.things
