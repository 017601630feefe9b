"""contract/: the same ids, pixels and answers as ever. Its vectors come from the commit before FORMAT 5."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

import janus_runtime
from testing import CONTRACT

NANO = json.loads((CONTRACT / "janus-nano.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def nano():
    with janus_runtime.load(backend="cpu") as janus:
        yield janus


def name(vector):
    return f"{vector['prompt']} {vector['seed']} {vector['settings']}"


@pytest.mark.parametrize("vector", NANO["draw"], ids=name)
def test_ids_and_pixels(nano, vector):
    (picture,) = nano.generate(vector["prompt"], seed=vector["seed"], **vector["settings"])
    assert picture.image_ids.tolist() == vector["image_ids"]
    with Image.open(io.BytesIO(base64.b64decode(vector["png"]))) as drawn:
        difference = np.abs(np.asarray(picture.image).astype(int) - np.asarray(drawn))
    # A number within rounding of a whole grey level is cut to either side of it: processors round differently.
    assert difference.max() <= 1 and np.mean(difference > 0) < 1e-3


def picture(nano, vector):
    return nano.generate(vector["prompt"], seed=vector["seed"])[0].image if vector else []


@pytest.mark.parametrize("vector", NANO["ask"], ids=lambda vector: f"{vector['image']['prompt']}, {vector['question']}")
def test_answers(nano, vector):
    answer = nano.describe(picture(nano, vector["image"]), vector["question"], max_tokens=vector["max_tokens"])
    assert ("".join(answer), answer.text_ids, answer.stop) == (vector["text"], vector["text_ids"], vector["stop"])


def test_a_conversation(nano):
    with nano.chat() as chat:
        for turn in NANO["chat"]:
            answer = chat.say(turn["question"], picture(nano, turn["image"]), max_tokens=40)
            assert ("".join(answer), answer.text_ids) == (turn["text"], turn["text_ids"])
