"""JanusFlow's drawing as users meet it. That its numbers are right is shown in tests/parity/test_flow.py."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

import janus_runtime
from janus_runtime.bundle.interface import MASKED
from janus_runtime.bundle.manifest import Schedule
from janus_runtime.checks.verify import relative_difference
from janus_runtime.cli import main
from janus_runtime.drawing.flow import FlowDrawer
from janus_runtime.drawing.solver import make_steps
from janus_runtime.errors import Cancelled, NumericalError, PromptError
from testing.collector import Collector
from testing.sessions import wait_until_idle
from testing.stand_in import StandIn
from tests.marks import needs_int8_cache

THREE = make_steps("euler", Schedule(3, 1.0))


@pytest.fixture(scope="module")
def flow(bundles):
    with janus_runtime.load(bundles("tiny-flow"), backend="cpu") as opened:
        yield opened


@pytest.mark.parametrize("late", [0, 20])
def test_verify_finds_times_that_are_not_the_exporters(flow, monkeypatch, late):
    """From the first step on, and where no golden of a step reaches."""

    def wrong(solver, schedule):
        steps = make_steps(solver, schedule)
        steps.times[late:] += 3
        return steps

    monkeypatch.setattr("janus_runtime.checks.verify.make_steps", wrong)
    failed = {check.graph for check in flow.verify_goldens() if not check.passed}
    assert failed == {"time_embed", *(["flow_step"] if late == 0 else [])}


def test_a_picture(flow):
    steps = []
    pictures = flow.generate(["a cat", "two large dogs"], n=2, seed=5, steps=4, batch_size=3, on_step=lambda *step: steps.append(step))
    assert [(p.prompt, p.seed) for p in pictures] == [("a cat", 5), ("a cat", 6), ("two large dogs", 5), ("two large dogs", 6)]
    assert steps == [(step, 8) for step in range(1, 9)]
    for picture in pictures:
        assert picture.image.size == (64, 64) and picture.latents.shape == (4, 8, 8) and picture.latents.dtype == np.float32
        assert {"load", "prefill", "steps", "step", "decode"} <= picture.timings.keys()
        assert picture.settings.cfg_weight == 2.0 and picture.settings.steps == 4
    (again,) = flow.generate("a cat", seed=6, steps=4)
    assert np.array_equal(again.latents, pictures[1].latents)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=needs_int8_cache)])
def test_company_changes_no_bit_of_a_picture(bundles, precision):
    """Shorter and longer prompts, within one padded length and beyond it, in batches of several sizes."""
    texts = ["a cat", "two large dogs left of a tree", "a cat on a mat " * 12]
    with janus_runtime.load(bundles("tiny-flow", precision), backend="cpu") as opened:
        lengths = [len(opened._prompter.image(text)) for text in texts]
        assert lengths[0] < lengths[1] <= 64 < lengths[2]
        alone = {(text, seed): opened.generate(text, seed=seed, steps=3)[0] for text in texts for seed in range(3)}
        for order in (texts, texts[::-1], [texts[0], texts[2], texts[1]]):
            for batch_size in (1, 2, 4, 8):
                for picture in opened.generate(order, n=3, steps=3, batch_size=batch_size):
                    own = alone[picture.prompt, picture.seed]
                    assert np.array_equal(picture.latents, own.latents) and picture.image.tobytes() == own.image.tobytes()


def test_a_prompt_is_padded_as_far_as_there_are_positions(flow):
    """The longest prompt is no multiple of the padding."""
    drawer = FlowDrawer(flow._engines)
    assert [drawer.batch_key(np.zeros(length, np.int32)) for length in (5, 64, 65, 1007)] == [64, 64, 128, 1007]


@pytest.mark.parametrize(("solver", "own"), [(None, ("euler", 30, 1.0)), ("euler", ("euler", 30, 1.0)), ("ab2", ("ab2", 15, 2.0))])
def test_the_models_own_number_of_steps(flow, solver, own):
    (picture,) = flow.generate("a cat", solver=solver)
    assert (picture.settings.solver, picture.settings.steps, picture.settings.shift) == own


def test_solvers_draw_nearly_the_same_and_more_steps_bring_them_together(flow):
    def distance(steps):
        first, second = (flow.generate("a cat", seed=4, solver=solver, steps=steps)[0].latents for solver in ("euler", "ab2"))
        return relative_difference(second, first)

    assert 0 < distance(60) < distance(8) / 3


def test_pictures_of_two_solvers_share_calls_and_change_no_bit_of_each_other(bundles):
    asked = [(solver, steps, seed) for solver, steps in (("euler", 3), ("ab2", 5), ("ab2", 4), ("euler", 6)) for seed in range(3)]
    with janus_runtime.load(bundles("tiny-flow"), backend="cpu") as janus:
        alone = {(solver, steps, seed): janus.generate("a cat", solver=solver, steps=steps, seed=seed)[0] for solver, steps, seed in asked}
        before, together = janus.status(), [Collector() for _ in asked]
        for (solver, steps, seed), collector in zip(asked, together, strict=True):
            janus.submit_drawing("a cat", post=collector.post, solver=solver, steps=steps, seed=seed)
        for one, collector in zip(asked, together, strict=True):
            assert np.array_equal(collector.wait().pictures[0].latents, alone[one].latents)
        wait_until_idle(janus)
        after = janus.status()
    assert (after.stepped_rows - before.stepped_rows) / (after.steps - before.steps) > 4, "they shared calls"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.5}, "draws by a flow and has no ids to choose from; leave temperature, top_k and top_p out"),
        ({"top_k": 5}, "has no ids to choose from"),
        ({"top_p": 0.5}, "has no ids to choose from"),
        ({"steps": 0}, "steps is 0; expected 1 to 10000"),
        ({"solver": "ab2", "steps": 10_001}, "steps is 10001; expected 1 to 10000"),
        ({"solver": "heun"}, "solver is 'heun'; expected one of euler, ab2"),
        ({"cfg_weight": float("nan")}, "cfg_weight is nan"),
        ({"image": Image.new("RGB", (8, 8)), "image_weight": 5.0}, "only sees a picture and has no ids of it to weigh that against"),
    ],
)
def test_settings_that_mean_nothing(flow, settings, message):
    with pytest.raises(ValueError, match=message):
        flow.generate("a cat", **settings)


def test_steps_and_solvers_are_not_for_ids(janus):
    with pytest.raises(ValueError, match="this model draws 16 ids, one a step; steps are JanusFlow's: leave them out"):
        janus.generate("a cat", steps=30)
    with pytest.raises(ValueError, match="this model draws 16 ids, one a step; a solver is JanusFlow's: leave it out"):
        janus.generate("a cat", solver="euler")


def test_cancelling(flow):
    cancel = threading.Event()
    with pytest.raises(Cancelled, match="cancelled after 2 of 30 steps"):
        flow.generate("a cat", cancel=cancel, on_step=lambda step, total: step == 2 and cancel.set())


def test_numbers_that_are_none(flow):
    drawer = FlowDrawer(flow._engines)
    prefix = drawer.prefix([flow._engines.embed_text(flow._prompter.image("a cat"))])
    noise = np.full((1, 4, 8, 8), np.inf, np.float32)
    with pytest.raises(NumericalError, match="flow_step gave NaN or Inf after 1 steps"):
        next(drawer.integrate(noise, prefix, THREE, 2.0))


def test_a_prompt_over_the_limit(flow):
    """1024 tokens, 16 of the picture and one for the time."""
    with pytest.raises(PromptError, match=r"prompt has \d+ tokens, this model takes 1007 beside a picture"):
        flow.generate("fox " * 500)


def test_the_unconditional_row_is_bos_alone(flow):
    """Whatever lies in masked places changes no bit, and an open one does."""
    drawer = FlowDrawer(flow._engines)
    prompts = [flow._engines.embed_text(flow._prompter.image(text)) for text in ("a cat", "two large dogs left of a tree")]
    prefix = drawer.prefix(prompts)
    assert (prefix["prefix_mask"] == 0).sum(-1).tolist() == [[len(prompts[0]), 1], [len(prompts[1]), 1]]
    assert prefix["first_position"].tolist() == [len(prompt) for prompt in prompts]
    noise = np.random.default_rng(0).standard_normal((2, 4, 8, 8), np.float32)

    def latents():
        return list(drawer.integrate(noise, prefix, THREE, 2.0))[-1][0]

    base, masked = latents(), prefix["prefix_mask"] == MASKED
    prefix["prefix_embeds"][masked] = 7
    assert np.array_equal(latents(), base)
    prefix["prefix_mask"][0, 1, 1] = 0
    assert np.abs(latents()[0] - base[0]).max() > 1e-3


def test_a_picture_that_the_prompt_speaks_of(flow):
    first, second = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    plain, *others = (flow.generate("a cat", seed=1, steps=3, image=image)[0].latents for image in (None, first, second))
    assert np.abs(others[0] - plain).max() > 1e-3 and np.abs(others[0] - others[1]).max() > 1e-3


def test_a_backend_with_a_device(bundles, flow):
    """Graphs that go by way of a device, as on a GPU, give the CPU's latents."""
    from janus_runtime.bundle.bundle import Bundle
    from janus_runtime.decoding.engines import Engines

    engines = Engines(Bundle.open(bundles("tiny-flow")), StandIn())
    drawer, ours = FlowDrawer(engines), FlowDrawer(flow._engines)
    prefix = ours.prefix([flow._engines.embed_text(flow._prompter.image("a cat"))])
    noise = np.random.default_rng(0).standard_normal((1, 4, 8, 8), np.float32)
    got, expected = (list(d.integrate(noise, prefix, THREE, 2.0))[-1][0] for d in (drawer, ours))
    assert np.array_equal(got, expected)
    engines.close()


def test_commands(run, bundles, tmp_path):
    folder = bundles("tiny-flow")
    result = run(main, "generate", "a cat", "-n", 1, "--steps", 3, "--cfg-weight", 3, "--bundle", folder, "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    with Image.open(answer["file"]) as picture:
        assert picture.size == (64, 64) and picture.text["steps"] == "3" and picture.text["cfg_weight"] == "3.0"
        assert "temperature" not in picture.text and picture.text["solver"] == "euler" and picture.text["shift"] == "1.0"
    assert (answer["solver"], answer["steps"]) == ("euler", 3)
    result = run(main, "generate", "a cat", "-n", 1, "--solver", "ab2", "--bundle", folder, "--out", tmp_path, "--json")
    answer = json.loads(result.stdout)
    assert (answer["solver"], answer["steps"]) == ("ab2", 15)
    with Image.open(answer["file"]) as picture:
        assert [picture.text[key] for key in ("solver", "steps", "shift")] == ["ab2", "15", "2.0"]
    result = run(main, "describe", answer["file"], "--bundle", folder, "--max-tokens", 3, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout.splitlines()[-1])["tokens"] == 3
    result = run(main, "info", "--bundle", folder)
    assert "64x64, 8x8 latents of 4 channels, 30 steps, 15 with --solver ab2" in result.stdout and "VAE vae" in result.stdout
    result = run(main, "verify", "--bundle", folder)
    assert result.exit_code == 0 and "flow_step: differs by" in result.stdout
    result = run(main, "bench", "--bundle", folder, "--seconds", 0.5)
    assert result.exit_code == 0 and "flow step, first" in result.stdout
    result = run(main, "generate", "a cat", "--temperature", 0.5, "--bundle", folder, "--out", tmp_path)
    assert result.exit_code == 1 and "leave temperature, --top-k and --top-p out" in result.stderr
    result = run(main, "generate", "a cat", "--solver", "heun", "--bundle", folder, "--out", tmp_path)
    assert result.exit_code == 2 and "'heun' is not one of 'euler', 'ab2'" in result.stderr
