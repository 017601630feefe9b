"""nano-flow, the tracked JanusFlow that this project trains: what its bundles draw and say is right, in every precision of a CPU."""

import json
from pathlib import Path

import numpy as np
import pytest

import janus_runtime
from bench.quality.nano_quality import main as score
from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_runtime.checks.tolerances import FP32, INT8
from janus_runtime.checks.verify import relative_difference
from nano.look import look, related
from testing import CONTRACT
from testing.reader import run_reader

CHECKPOINT = Path(__file__).resolve().parents[1] / "nano" / "nano-flow"
PROMPTS = [
    "a red circle",
    "a small blue square left of a green triangle",
    "three yellow crosses on black",
    "a large purple cross above a small red square on a grey background",
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`exported(precision)` -> folder of its bundle, exported on first use."""
    folder, made = tmp_path_factory.mktemp("nano-flow"), {}

    def get(precision: str) -> Path:
        if precision not in made:
            made[precision] = folder / precision
            export_bundle(open_checkpoint(str(CHECKPOINT)), made[precision], precision)
        return made[precision]

    return get


@pytest.fixture(scope="module")
def nano_flow(exported):
    with janus_runtime.load(exported("fp32"), backend="cpu") as janus:
        yield janus


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_latents_are_what_they_ever_were(exported, precision):
    """Vectors of the commit before FORMAT 5, ab2's of FORMAT 6. contract/reader.py, which takes nothing from us, draws what we draw.

    In int8 a sum of attention in another order, by this exporter or another processor, moves numbers to the next of 256 steps: 1 to 2 %
    of a drawing's largest. A formula that is wrong is off by more than int8 may be from fp32.
    """
    vectors = json.loads((CONTRACT / "nano-flow.json").read_text(encoding="utf-8"))["draw"]
    allowed = {"fp32": FP32, "int8": INT8}[precision]
    with janus_runtime.load(exported(precision), backend="cpu") as flow:
        for vector in vectors:
            if vector["precision"] == precision and "latents" in vector:
                solver, expected = vector.get("solver", "euler"), np.float32(vector["latents"])
                (drawn,) = flow.generate(vector["prompt"], seed=vector["seed"], solver=solver, steps=vector["steps"])
                assert relative_difference(drawn.latents.ravel(), expected) <= allowed
                chosen = "--seed", vector["seed"], "--solver", solver, "--steps", vector["steps"]
                read = run_reader("draw", exported(precision), vector["prompt"], *chosen)["latents"]
                assert relative_difference(np.float32(read), drawn.latents.ravel()) <= FP32


def test_ab2_draws_the_same_things_in_half_of_the_steps(nano_flow):
    few, many = (nano_flow.generate(PROMPTS, 4, solver=solver) for solver in ("ab2", "euler"))
    assert few[0].settings.steps * 2 == many[0].settings.steps
    assert sum(things(one) == things(other) for one, other in zip(few, many, strict=True)) >= 14


def things(picture):
    return [(thing.colour, thing.shape) for thing in look(np.asarray(picture.image)).things]


def test_a_red_circle_is_red_and_round(nano_flow):
    assert [things(picture) for picture in nano_flow.generate("a red circle", n=4)] == [[("red", "circle")]] * 4


def test_things_stand_where_they_were_asked_to(nano_flow):
    for picture in nano_flow.generate("a small blue square left of a green triangle", n=4):
        square, triangle = look(np.asarray(picture.image)).things
        assert (square.colour, square.shape, square.size) == ("blue", "square", "small")
        assert (triangle.colour, triangle.shape) == ("green", "triangle")
        assert related(square, "left of", triangle)


def test_what_it_draws_it_can_describe(nano_flow):
    (picture,) = nano_flow.generate("a large yellow cross on black")
    assert "".join(nano_flow.describe(picture.image, "What colour is the cross?")).strip() == "yellow"
    assert "".join(nano_flow.describe(picture.image, "What colour is the background?")).strip() == "black"


def test_a_picture_is_its_seeds_in_any_company(nano_flow):
    """Prompts of other lengths beside it, in both orders: the same to within what rounding moves."""
    alone = [nano_flow.generate(prompt, seed=7)[0] for prompt in PROMPTS]
    for order in (1, -1):
        company = nano_flow.generate(PROMPTS[::order], seed=7, batch_size=4)[::order]
        for one, other in zip(alone, company, strict=True):
            assert np.abs(np.asarray(one.image, int) - np.asarray(other.image, int)).max() <= 2


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_integer_weights_draw_the_same_things(nano_flow, exported, precision):
    whole = nano_flow.generate(PROMPTS, 4)
    with janus_runtime.load(exported(precision), backend="cpu") as janus:
        same = [things(picture) == things(other) for picture, other in zip(janus.generate(PROMPTS, 4), whole, strict=True)]
    assert sum(same) >= 14


def test_it_scores_what_it_promises(run, exported):
    """`--check` on the number of draws that a test has time for; bench/results has it on many."""
    result = run(score, exported("fp32"), "--draws", 64, "--questions", 32, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["family"] == "janus-flow" and report["cfg_weight"] == 2
    assert min(report["colour"], report["shape"], report["answers"]) >= 0.8


def test_sizes():
    assert sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file()) <= 6_000_000
