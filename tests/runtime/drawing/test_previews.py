"""Partial pictures are decoded by `image_preview` where the bundle has one; the picture itself never is."""

import numpy as np
import pytest

import janus_runtime
from janus_runtime.backends.ort_cpu import OrtBinding
from janus_runtime.bundle.bundle import NANO
from janus_runtime.decoding.engines import Engines
from janus_runtime.events import Drawn, Partial
from janus_runtime.pictures.difference import psnr_db
from testing.collector import Collector

PROMPT = "a red circle left of a blue square"


@pytest.fixture(scope="module")
def nano():
    with janus_runtime.load(NANO, backend="cpu") as janus:
        yield janus


@pytest.fixture
def decoded(monkeypatch):
    """Names of the graphs that gave pixels, in order."""
    names, run = [], OrtBinding.run

    def recorded(self, inputs, stop=None):
        outputs = run(self, inputs, stop)
        if "pixels" in outputs:
            names.append(self._name)
        return outputs

    monkeypatch.setattr(OrtBinding, "run", recorded)
    return names


def draw(janus, partial_images):
    collector = Collector()
    janus.submit_drawing(PROMPT, post=collector.post, seed=3, partial_images=partial_images)
    events = collector.wait().events
    (drawn,) = (event.picture for event in events if isinstance(event, Drawn))
    return drawn, [event.image for event in events if isinstance(event, Partial)]


def test_partial_pictures_use_the_preview_and_the_last_one_never_does(nano, decoded):
    drawn, partials = draw(nano, partial_images=2)
    assert len(partials) == 2 and decoded == ["image_preview", "image_preview", "image_decoder"]
    (plain,) = nano.generate(PROMPT, seed=3)
    assert plain.image.tobytes() == drawn.image.tobytes() and decoded[-1] == "image_decoder"


def test_without_partial_pictures_the_preview_is_not_even_opened():
    with janus_runtime.load(NANO, backend="cpu") as janus:
        draw(janus, partial_images=0)
        assert janus._engines.are_open("image_decoder") and not janus._engines.are_open("image_preview")


def test_a_preview_looks_like_the_picture(nano):
    drawn, _ = draw(nano, partial_images=0)
    got, exact = (nano._engines[name].run({"image_ids": drawn.image_ids[None]})["pixels"] for name in ("image_preview", "image_decoder"))
    assert psnr_db(got, exact) > 30 and not np.array_equal(got, exact)


def test_a_bundle_without_one_decodes_partial_pictures_as_the_last_one(nano, decoded, monkeypatch):
    monkeypatch.setattr(Engines, "preview", "image_decoder")
    _, partials = draw(nano, partial_images=1)
    assert len(partials) == 1 and decoded == ["image_decoder", "image_decoder"]


def test_a_device_has_no_use_for_it(nano, monkeypatch):
    """The graph is made for the instructions of a CPU."""
    assert nano._engines.preview == "image_preview"
    monkeypatch.setattr(nano._engines.backend, "limits", object(), raising=False)
    assert nano._engines.preview == "image_decoder"


def test_verify_checks_it(nano):
    (check,) = (check for check in nano.verify_goldens() if check.graph == "image_preview")
    assert check.passed and 0.001 < check.difference < check.tolerance
