"""Logits of every step with fixed ids fed, against one forward over the whole sequence."""

from contextlib import closing

import numpy as np
import pytest

from janus_runtime.decoding.sessions import open_session
from testing.reference import example_images
from testing.sessions import prefill, step
from tests.parity.compare import assert_close

PROMPTS = ("a red circle left of the blue square", "fox", "what colour is the triangle in this picture? Describe the image, please.")
TEXT_STEPS = 24


def teacher_forced(runtime, kind: str, prompts: list[np.ndarray], ids: np.ndarray) -> np.ndarray:
    """Prompt embeddings of each row, ids [steps, rows] -> logits [1 + steps, rows, V]."""
    longest = max(map(len, prompts))
    with closing(open_session(runtime._engines, kind, rows=len(prompts), max_length=longest + len(ids))) as session:
        return np.stack([prefill(session, prompts, kind), *(step(session, each) for each in ids)])


def assert_all_steps(reference, kind: str, got: np.ndarray, prompts: list[np.ndarray], ids: np.ndarray, labels: list[str]) -> None:
    assert got.shape[:2] == (1 + len(ids), len(prompts))
    for row, prompt in enumerate(prompts):
        sequence = np.concatenate([prompt, reference.embed(kind, ids[:, row])])
        expected = reference.logits(kind, sequence)[len(prompt) - 1 :]
        for index in range(len(got)):
            assert_close(got[index, row], expected[index], f"{kind} logits, row {row} ({labels[row]}), step {index}")


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one prompt", "prompts of different lengths"])
def test_image_generation(runtime, reference, prompts):
    """Conditional and unconditional rows; the pads of the latter are attended, at positions 0 … T - 1 without a mask."""
    rows, labels = [], []
    for text in prompts:
        ids = reference.generation_ids(text)
        rows += [ids, reference.unconditional(ids)]
        labels += [f"conditional, {len(ids)} ids", f"unconditional, {len(ids)} ids"]
    assert len(set(map(len, rows))) == len(prompts), "the prompts should differ in length"
    drawn = np.random.default_rng(0).integers(0, reference.num_codes, (reference.num_image_ids - 1, len(prompts)))
    # The id that was drawn goes to both rows of its pair.
    drawn = np.repeat(drawn, 2, axis=1).astype(np.int32)
    got = teacher_forced(runtime, "image", [runtime._engines.embed_text(row.astype(np.int32)) for row in rows], drawn)
    assert_all_steps(reference, "image", got, [reference.text_embed(row) for row in rows], drawn, labels)


def test_unconditional_rows_from_the_runtimes_own_prompter(runtime, reference):
    """The test above feeds its own rows; these are the ones that `generate` feeds."""
    for text in PROMPTS:
        ids = reference.generation_ids(text)
        assert runtime._prompter.blank(ids.astype(np.int32)).tolist() == reference.unconditional(ids).tolist(), text


@pytest.mark.parametrize("images", [1, 2])
def test_text_after_pictures(runtime, reference, images):
    """Features of the vision encoder spliced into a prompt, then an answer of fixed ids."""
    size = reference.image_size
    pictures = example_images(3, [(size, size), (2 * size, size)])[:images]
    pixels = np.stack([reference.pixels(picture) for picture in pictures])
    ids = reference.question_ids("what colour is the triangle?", images)
    place = ids == reference.special.image_placeholder
    embeds = runtime._engines.embed_text(ids.astype(np.int32)).copy()
    embeds[place] = runtime._engines["vision_encoder"].run({"pixels": pixels})["embeds"].reshape(-1, reference.width)
    answer = answers(reference, 1)
    got = teacher_forced(runtime, "text", [embeds], answer)
    expected = reference.prompt_embeds(ids, pixels)
    assert_all_steps(reference, "text", got, [expected], answer, [f"{images} pictures"])
    # Splicing checks nothing if the answer does not depend on the pictures and on where they stand.
    for other, what in ((np.zeros_like(pixels), "the pictures"), (np.roll(pixels, 9, axis=-1), "where things are in a picture")):
        logits = reference.logits("text", reference.prompt_embeds(ids, other))[-1]
        assert np.abs(got[0, 0] - logits).max() > 1e-2 * np.abs(logits).max(), f"the logits do not depend on {what}"


def test_text_rows_of_different_lengths(runtime, reference):
    prompts = [reference.encode(reference.turn(text)) for text in PROMPTS]
    answer = answers(reference, len(prompts))
    got = teacher_forced(runtime, "text", [runtime._engines.embed_text(ids.astype(np.int32)) for ids in prompts], answer)
    labels = [f"{len(ids)} ids" for ids in prompts]
    assert_all_steps(reference, "text", got, [reference.text_embed(ids) for ids in prompts], answer, labels)


def answers(reference, rows: int) -> np.ndarray:
    """Fixed text ids [TEXT_STEPS, rows], other ones in each row."""
    vocabulary = reference.model.config.text_config.vocab_size
    return np.random.default_rng(1).integers(0, vocabulary, (TEXT_STEPS, rows), np.int32)
