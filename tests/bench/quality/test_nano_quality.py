"""The gate itself: truth passes, each kind of mistake is counted as what it is, and a worse bundle fails."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bench.quality.nano_quality import SEED, ask, draw, drawing_outcomes, losses, main, scores
from janus_runtime.bundle.bundle import NANO
from nano.language import caption
from nano.scenes import Scene, Thing, render, sample

PAIR = Scene("pair", (Thing("red", "circle", "small", 16, 32), Thing("blue", "square", "large", 44, 36)), "white", "left of")
PROMPT = "a small red circle left of a large blue square on white"


def outcome(drawn, asked=PAIR, prompt=PROMPT):
    return drawing_outcomes(asked, prompt, render(drawn))


def test_truth_is_right_in_everything():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = sample(rng, held_out=True)
        prompt = caption(scene, rng, new=True)
        assert set(outcome(scene, scene, prompt).values()) <= {True, None}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"colour": "green"}, {"colour", "colour_and_shape", "position", "size"}),
        ({"shape": "cross"}, {"shape", "colour_and_shape", "position", "size"}),
        ({"size": "large"}, {"size"}),
        ({"y": 10, "x": 44}, {"position"}),
    ],
)
def test_each_mistake_is_counted_as_what_it_is(change, wrong):
    drawn = replace(PAIR, things=(replace(PAIR.things[0], **change), PAIR.things[1]))
    assert {name for name, right in outcome(drawn).items() if right is False} == wrong


def test_swapped_colours_are_the_right_colours_of_the_wrong_things():
    first, second = PAIR.things
    drawn = replace(PAIR, things=(replace(first, colour="blue"), replace(second, colour="red")))
    right = outcome(drawn)
    assert right["colour"] and right["shape"] and not right["colour_and_shape"]


def test_a_missing_or_added_thing_is_wrong():
    assert not outcome(replace(PAIR, things=PAIR.things[:1]))["colour"]
    many = Scene("many", tuple(Thing("red", "cross", "small", 12 + 20 * i, 32) for i in range(3)), "black", "3")
    right = outcome(many, replace(many, things=many.things[:2]), "two red crosses")
    assert right["count"] is False and right["colour"] is False


def test_background_and_size_count_only_where_they_were_asked_for():
    grey = replace(PAIR, background="grey")
    assert outcome(grey)["background"] is False
    right = outcome(grey, prompt="a red circle left of a blue square")
    assert right["background"] is None and right["size"] is None
    assert outcome(grey, asked=grey, prompt="a red circle left of a blue square on a gray background")["background"] is True


def test_a_loss_fails_beyond_a_point_and_two_errors():
    baseline = {"colour": [True] * 1000}
    assert losses(baseline, baseline)["colour"] == {"loss": 0.0, "standard_error": 0.0, "draws": 1000, "failed": False}
    assert not losses({"colour": [False] * 15 + [True] * 985}, baseline)["colour"]["failed"]
    assert losses({"colour": [False] * 30 + [True] * 970}, baseline)["colour"]["failed"]
    gained = losses(baseline, {"colour": [False] * 30 + [True] * 970})["colour"]
    assert gained["loss"] == pytest.approx(-0.03) and not gained["failed"]
    assert scores({"colour": [True, False, None, None], "place": [None]}) == {"colour": 0.5}


def test_the_command_scores_a_bundle(run):
    result = run(main, NANO, "--draws", 24, "--questions", 40, "--unguided", "--baseline", NANO, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {"colour", "shape", "position", "answers"} <= set(report)
    assert min(report["colour"], report["shape"], report["answers"]) >= 0.8
    assert report["losses"].keys() >= {"colour", "shape", "answers"} and {row["loss"] for row in report["losses"].values()} == {0}
    assert report["draws"] == 24 and report["backend"] == "cpu" and report["seed"] == SEED


def test_another_seed_is_another_sample_of_prompts_questions_and_noise():
    class Recorder:
        """Stands where a bundle is scored, and shows nothing but white: what is scored is not of interest here."""

        def __init__(self):
            self.asked = []

        def generate(self, prompts, *, seed, cfg_weight, batch_size):
            self.asked += [*prompts, seed]
            return [SimpleNamespace(image=Image.new("RGB", (64, 64), "white")) for _ in prompts]

        def describe(self, image, question, *, max_tokens):
            self.asked += [image.tobytes(), question]
            return iter([""])

    def asked(**seed):
        recorder = Recorder()
        draw(recorder, 12, None, lambda text: None, **seed)
        ask(recorder, 4, lambda text: None, **seed)
        return recorder.asked

    assert asked() == asked(seed=SEED)
    assert not set(map(str, asked())) & set(map(str, asked(seed=1)))


def test_a_model_that_cannot_draw_fails_the_check(run, tiny):
    result = run(main, tiny, "--draws", 8, "--questions", 8, "--check")
    assert result.exit_code == 1
    assert "colour is 0.000, promised 0.95" in result.stderr


def test_a_worse_bundle_fails_against_its_baseline(run, tiny):
    result = run(main, tiny, "--draws", 8, "--questions", 8, "--baseline", NANO)
    assert result.exit_code == 1 and "colour lost" in result.stderr
    assert "of the baseline" in result.stdout


def test_what_cannot_be_scored_is_one_line(run, tiny, bundles):
    result = run(main, bundles("small"), "--draws", 1, "--questions", 1)
    assert result.exit_code == 1 and "draws 80x80, janus-nano and nano-flow 64x64" in result.stderr
    result = run(main, tiny, "--draws", 1, "--questions", 1, "--check")
    assert result.exit_code == 1 and "was not asked for; raise --draws" in result.stderr
