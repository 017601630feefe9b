"""Greedy answers: ids equal to those of HF's own generate, about pictures and in batches of plain prompts."""

import json
import shutil
from contextlib import closing

import numpy as np
import pytest
from transformers import JanusImageProcessorPil

import janus_runtime
from janus_runtime.decoding.sessions import open_session
from testing.reference import example_images
from testing.sessions import prefill, step
from tests.parity.compare import assert_same_ids

COUNT = 24
QUESTIONS = ("what colour is the triangle in this picture?", "describe the image")
PROMPTS = ("a red circle left of the blue square", "hi", "what colour is the triangle in this picture? Describe the image, please.")


def two_images():
    return example_images(9, [(90, 70), (33, 120)])


def answer(runtime, images, question: str, count: int = COUNT) -> np.ndarray:
    pieces = runtime.describe(images, question, max_tokens=count)
    for _ in pieces:  # The ids are there once the text has been read.
        pass
    return np.asarray(pieces.text_ids)


def expected_answer(reference, images, question: str, count: int = COUNT) -> tuple[np.ndarray, float]:
    pixels = np.stack([reference.pixels(image) for image in images])
    return reference.greedy_text(reference.question_ids(question, len(images)), count, pixels)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 5)], ids=["square", "wide", "tall"])
def test_single_image(runtime, reference, shape, question):
    """The wide and the tall picture are padded, and their short sides fall between two rows of pixels."""
    size = reference.image_size
    (image,) = example_images(7, [(shape[0] * size // 2 + 1, shape[1] * size // 2 + 1)])
    expected, lead = expected_answer(reference, [image], question)
    assert_same_ids(answer(runtime, image, question), expected, lead, f"{image.size} pixels, {question!r}")


@pytest.mark.parametrize("question", QUESTIONS)
def test_two_images(runtime, reference, question):
    expected, lead = expected_answer(reference, two_images(), question)
    assert_same_ids(answer(runtime, two_images(), question), expected, lead, f"two pictures, {question!r}")


def test_answers_depend_on_pictures_and_their_order(reference):
    """Else the tests above would pass for a runtime that ignores either."""
    first, second = two_images()
    groups = [[first, second], [second, first], [first]]
    answers = {tuple(expected_answer(reference, images, QUESTIONS[0])[0]) for images in groups}
    assert len(answers) == len(groups)


def test_answer_stops_at_eos(bundles, model, reference, tmp_path):
    """No answer of a random model comes to EOS, so an id that does come takes its place, in a copy of the bundle and in HF.

    HF ends its sequence with EOS; for the runtime it is no part of the answer.
    """
    (image,) = example_images(7, [(50, 50)])
    whole, lead = expected_answer(reference, [image], QUESTIONS[0])
    eos = next(int(id) for i, id in enumerate(whole) if i >= 5 and id not in whole[:i] and reference.tokenizer.id_to_token(id))
    folder = shutil.copytree(bundles(model), tmp_path / model)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["tokens"]["eos"] = {"text": reference.tokenizer.id_to_token(eos), "id": eos}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    ids, pixels = reference.question_ids(QUESTIONS[0], 1), reference.pixels(image)[None]
    expected, _ = reference.greedy_text(ids, COUNT, pixels, eos)
    assert expected[-1] == eos and 5 < len(expected) < COUNT, "HF did not stop early"
    with janus_runtime.load(folder, backend="cpu") as runtime:
        got = answer(runtime, image, QUESTIONS[0])
    assert_same_ids(got, expected[:-1], lead, f"EOS moved to {eos}")


def test_pixels_equal_hfs_where_the_sizes_agree(reference):
    """The reference's own preprocessing against HF's, for sizes where rounding down and to nearest are the same."""
    size = reference.image_size
    processor = JanusImageProcessorPil(size={"height": size, "width": size}, min_size=14, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    for image in example_images(0, [(size, size), (2 * size, size), (3 * size, 6 * size), (20, 20)]):
        hf = processor(image, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(reference.pixels(image), hf), f"a picture of {image.size}"


def test_batch_of_prompts_of_different_lengths(runtime, reference):
    """One session steps all rows greedily; each row equals HF's answer to its prompt alone."""
    prompts = [reference.encode(reference.turn(text)) for text in PROMPTS]
    assert len(set(map(len, prompts))) == len(prompts)
    with closing(open_session(runtime._engines, "text", rows=len(prompts), max_length=max(map(len, prompts)) + COUNT)) as session:
        logits = prefill(session, [runtime._engines.embed_text(ids.astype(np.int32)) for ids in prompts], "text")
        got = [logits.argmax(-1).astype(np.int32)]
        while len(got) < COUNT:
            got.append(step(session, got[-1]).argmax(-1).astype(np.int32))
    for row, (ids, text) in enumerate(zip(prompts, PROMPTS, strict=True)):
        expected, lead = reference.greedy_text(ids, COUNT)
        # Rows go on after EOS here; HF stops at it.
        assert_same_ids(np.stack(got)[: len(expected), row], expected, lead, f"row {row} ({text!r})")
