"""The same bundle and the same seed: the same ids and pixels as the Python runtime draws."""

import ctypes
import itertools
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import janus_runtime
from testing.c_library import CancelToken, CError, Model, c_image

ROOT = Path(__file__).parents[2]
SHAPES, COLOURS = ("circle", "square", "triangle", "cross"), ("red", "green", "blue", "yellow")
PROMPTS = [
    *(f"a {colour} {shape}" for colour, shape in itertools.product(COLOURS, SHAPES)),
    *(f"two small {colour} {shape}s on black" for colour, shape in itertools.product(COLOURS, SHAPES)),
    *(f"a large {colour} {shape} left of a white square" for colour, shape in itertools.product(COLOURS, SHAPES)),
    "  \u3000 a circle\x1f ",
    "ein Kreis, très rouge 🟥",
]


def assert_same(ours, theirs):
    assert [picture.seed for picture in ours] == [picture.seed for picture in theirs]
    for picture, expected in zip(ours, theirs, strict=True):
        if expected.image_ids is not None:
            assert np.array_equal(picture.image_ids, expected.image_ids)
        else:
            assert np.allclose(picture.latents, expected.latents.ravel(), rtol=0, atol=2e-6 * np.abs(expected.latents).max())
        difference = np.abs(picture.pixels.astype(int) - np.asarray(expected.image).astype(int)).max()
        assert difference == 0 if expected.image_ids is not None else difference <= 1


def test_fifty_prompts_of_janus_nano(nano):
    model, janus = nano
    assert len(PROMPTS) == 50
    assert_same(model.generate(PROMPTS, seed=7), janus.generate(PROMPTS, seed=7))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "precision"), [("janus-nano", "int4"), ("janus-nano", "int8"), ("nano-flow", "fp32"), ("nano-flow", "int8")]
)
def test_fifty_prompts_of_the_trained_models(load_both, tmp_path, model, precision):
    pytest.importorskip("torch", reason="needs the exporter")
    command = [sys.executable, "-m", "janus_export.cli", "checkpoint", ROOT / "nano" / model, "--out", tmp_path / "bundle"]
    subprocess.run([*command, "--precision", precision], check=True, capture_output=True)
    ours, theirs = load_both(tmp_path / "bundle")
    prompts = PROMPTS if model == "janus-nano" else PROMPTS[:48:2]
    assert_same(ours.generate(prompts, seed=7), theirs.generate(prompts, seed=7))
    if model == "nano-flow":
        assert_same(ours.generate(prompts, seed=7, solver="ab2"), theirs.generate(prompts, seed=7, solver="ab2"))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": 0.7, "top_k": 5},
        {"top_p": 0.5},
        {"temperature": 2.0, "top_k": 100, "top_p": 0.9},
        {"cfg_weight": 1.0},
        {"cfg_weight": -3.5, "seed": 2**64 - 4},
        {"batch_size": 1, "n": 4},
        {"batch_size": 3, "n": 4},
    ],
    ids=str,
)
def test_settings(nano, settings):
    model, janus = nano
    prompts, chosen = ["a red circle", "two blue squares"], {"n": 2, "seed": 5, **settings}
    assert_same(model.generate(prompts, **chosen), janus.generate(prompts, **chosen))


@pytest.mark.parametrize(
    ("name", "precision"), [("tiny", "fp16"), ("tiny", "int8"), ("small", "int4"), ("tiny-flow", "fp32"), ("tiny-flow", "int8")]
)
def test_other_bundles(load_both, name, precision):
    model, janus = load_both(name, precision)
    prompts = ["a cat", "a dog on a long, long walk through the snow and the rain and the wind, which goes on and on", "a cat and a dog"]
    assert_same(model.generate(prompts, n=2, seed=3), janus.generate(prompts, n=2, seed=3))


@pytest.mark.parametrize("settings", [{"steps": 7}, {"solver": "euler"}, {"solver": "ab2"}, {"solver": "ab2", "steps": 1}], ids=str)
def test_steps_of_a_flow(load_both, settings):
    model, janus = load_both("tiny-flow", "fp32")
    chosen = {"n": 3, "cfg_weight": 3.0, **settings}
    assert_same(model.generate("a cat", **chosen), janus.generate("a cat", **chosen))


@pytest.mark.parametrize("name", ["tiny", "tiny-flow"])
def test_drawing_from_a_picture(load_both, name):
    model, janus = load_both(name, "fp32")
    pixels = np.random.default_rng(3).integers(0, 256, (50, 70, 3), np.uint8)
    given, settings = {"n": 2, "seed": 1}, {} if name == "tiny-flow" else {"image_weight": 2.5}
    ours = model.generate("a cat", image=ctypes.pointer(c_image(pixels)), **given, **settings)
    assert_same(ours, janus.generate("a cat", image=Image.fromarray(pixels), **given, **settings))


def test_pictures_come_in_order_and_steps_are_told(nano):
    model, _ = nano
    steps, order = [], []
    model.generate(
        ["a red circle", "a blue cross"],
        n=3,
        batch_size=2,
        seed=9,
        on_step=lambda step, total: steps.append((step, total)) or 1,
        on_picture=lambda picture: order.append((picture.number, picture.prompt, picture.seed)) or 1,
    )
    assert steps == [(i + 1, 192) for i in range(192)]
    assert order == [(i, i // 3, 9 + i % 3) for i in range(6)]


@pytest.mark.parametrize("stopped_by", ["step", "picture", "token"])
def test_stopping(nano, library, stopped_by):
    model, _ = nano
    token, seen = CancelToken(library), []
    calls = {
        "step": {"on_step": lambda step, total: step < 10},
        "picture": {"on_picture": lambda picture: False, "batch_size": 1},
        "token": {"on_step": lambda step, total: (token.cancel() if step == 10 else seen.append(step)) or 1, "cancel": token.handle},
    }
    with pytest.raises(CError, match=r"cancelled after (10|64) of \d+ steps") as raised:
        model.generate("a red circle", n=3, **calls[stopped_by])
    assert raised.value.code == "cancelled"
    if stopped_by == "token":  # It stays set.
        with pytest.raises(CError, match="cancelled after 0 of"):
            model.generate("a red circle", cancel=token.handle)


@pytest.mark.parametrize("run", [1, 3])
def test_a_step_of_a_flow_is_left_within(library, build, bundles, monkeypatch, run):
    """Over a scripted ONNX Runtime, whose run lasts until it is ended."""
    monkeypatch.setenv("JANUS_SCRIPTED_FAULT", f"flow_step:{run}:wait")
    scripted, token = next((build / "tests").glob("libscripted_onnxruntime*")), CancelToken(library)
    with Model(library, bundles("tiny-flow"), scripted) as model:
        later = threading.Timer(0.2, token.cancel)
        if run == 1:
            later.start()
        with pytest.raises(CError, match=f"cancelled after {run - 1} of 6 steps") as raised:
            model.generate("a cat", n=2, steps=6, cancel=token.handle, on_step=lambda step, total: step != run - 1 or later.start() or 1)
        assert raised.value.code == "cancelled"
        # What was ended leaves nothing behind.
        unset = CancelToken(library)
        assert len(model.generate("a cat", n=2, steps=6, cancel=unset.handle)) == 2


def test_two_threads_at_once_get_what_they_get_alone(nano):
    model, janus = nano
    jobs = {"a red circle": 1, "three yellow crosses on black": 5}
    got = {}
    threads = [threading.Thread(target=lambda p=p, s=s: got.update({p: model.generate(p, n=4, seed=s)})) for p, s in jobs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt, seed in jobs.items():
        assert_same(got[prompt], janus.generate(prompt, n=4, seed=seed))


@pytest.mark.parametrize(
    ("name", "prompt", "settings"),
    [
        ("tiny", "a cat", {"n": 0}),
        ("tiny", "a cat", {"batch_size": 0}),
        ("tiny", "a cat", {"cfg_weight": 1001.0}),
        ("tiny", "a cat", {"temperature": -1.0}),
        ("tiny", "a cat", {"temperature": 1e-5}),
        ("tiny", "a cat", {"top_p": 0.0}),
        ("tiny", "a cat", {"steps": 3}),
        ("tiny", "a cat", {"solver": "euler"}),
        ("tiny", "a cat", {"solver": "ab2", "steps": 3}),
        ("tiny", "a cat", {"image_weight": 3.0}),
        ("tiny", "a cat", {"seed": 2**64 - 1, "n": 2}),
        ("tiny", " \u2003\x1e", {}),
        ("tiny", "a <image_placeholder> cat", {}),
        ("tiny", "long " * 5000, {}),
        ("tiny-flow", "a cat", {"top_k": 3}),
        ("tiny-flow", "a cat", {"temperature": 0.5}),
        ("tiny-flow", "a cat", {"steps": 10001}),
        ("tiny-flow", "a cat", {"steps": 10001, "solver": "ab2"}),
        ("tiny-flow", "long " * 5000, {}),
    ],
)
def test_what_python_refuses_is_refused_in_the_same_words(load_both, name, prompt, settings):
    model, janus = load_both(name)
    with pytest.raises((ValueError, janus_runtime.JanusError)) as theirs:
        janus.generate(prompt, **settings)
    with pytest.raises(CError) as ours:
        model.generate(prompt, **settings)
    assert str(ours.value) == str(theirs.value)
    assert ours.value.code == getattr(theirs.value, "code", "value")


def test_a_billion_pictures_take_no_memory_before_they_are_drawn(nano):
    model, _ = nano
    with pytest.raises(CError, match="cancelled after 64 of 8000000000 steps"):
        model.generate("a red circle", n=10**9, on_picture=lambda picture: False)
    with pytest.raises(CError, match="n is 1099511627777; expected at most 2\\^40 pictures in all"):
        model.generate("a red circle", n=2**40 + 1)


def test_a_solver_that_there_is_not(load_both):
    model, _ = load_both("tiny-flow")
    with pytest.raises(CError, match="solver is 3; expected a janus_solver, 0 to 2") as raised:
        model.generate("a cat", solver=3)
    assert raised.value.code == "value"


def test_half_a_bundle(load_both):
    model, janus = load_both("tiny", only="understanding")
    assert not model.info().generates and model.info().understands
    with pytest.raises(janus_runtime.JanusError) as theirs:
        janus.generate("a cat")
    with pytest.raises(CError) as ours:
        model.generate("a cat")
    assert str(ours.value) == str(theirs.value) and ours.value.code == "bundle"
