"""The torch engine over the stand-in device: the ids of ONNX Runtime's CPU path."""

from pathlib import Path

import pytest

import janus_runtime
from janus_runtime.bundle.bundle import NANO, Bundle
from janus_runtime.janus import janus_over
from testing.stand_in import LockedDevice
from testing.torch_engine import TorchBackend

CHECKPOINT = Path(__file__).resolve().parents[2] / "nano" / "janus-nano"
PROMPTS = ["a red circle", "two small green crosses on black"]


@pytest.fixture(scope="module")
def pair():
    """janus-nano on the CPU, and on torch over a device whose caches grow twice in a picture."""
    backend = TorchBackend(CHECKPOINT, LockedDevice(), (32, 64, 96, 480))
    with janus_runtime.load(NANO, "cpu") as cpu, janus_over(Bundle.open(NANO), backend) as torch:
        yield cpu, torch


@pytest.mark.parametrize("settings", [{"n": 8}, {"n": 2, "temperature": 0}, {"n": 2, "top_k": 20, "top_p": 0.9}], ids=str)
def test_pictures(pair, settings):
    cpu, torch = ([picture.image_ids.tolist() for picture in each.generate(PROMPTS, seed=3, **settings)] for each in pair)
    assert torch == cpu


def test_answers(pair):
    """No guidance: a session of one row."""
    image = pair[0].generate(PROMPTS[1], seed=1)[0].image
    said = ["".join(each.describe(image, "What colour are the crosses?", max_tokens=12)) for each in pair]
    assert said[0] == said[1] and said[0]


def test_every_graph_is_the_golden(pair):
    checks = list(pair[1].verify_goldens())
    assert len(checks) > 8 and all(check.passed for check in checks), [check for check in checks if not check.passed]
