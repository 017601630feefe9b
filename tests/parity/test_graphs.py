"""Every graph's output against the module of transformers that it was made from."""

from contextlib import closing

import numpy as np
import pytest

from janus_runtime.checks.tolerances import FP32, NEAR_TIES
from janus_runtime.decoding.sessions import open_session
from testing.reference import example_images
from testing.sessions import prefill, step
from tests.parity.compare import assert_close

BATCHES = pytest.mark.parametrize("batch", [1, 3])


def run(runtime, graph: str, **inputs: np.ndarray) -> np.ndarray:
    """The one output of a graph."""
    (output,) = runtime._engines[graph].run(inputs).values()
    return output


def noise_and_pictures(reference, batch: int) -> np.ndarray:
    """Pixels [batch + 2, 3, size, size]: noise reaches every frequency, pictures stay where real inputs are."""
    size = reference.image_size
    noise = np.random.default_rng(batch).uniform(-1, 1, (batch, 3, size, size)).astype(np.float32)
    pictures = example_images(batch, [(size + 7, size), (size // 2, 3 * size)])
    return np.stack([*noise, *map(reference.pixels, pictures)])


@BATCHES
def test_text_embed(runtime, reference, batch):
    vocabulary = reference.model.config.text_config.vocab_size
    # Every id once or more, the pad row and the last one included.
    ids = np.resize(np.arange(vocabulary), (batch, vocabulary)).astype(np.int32)
    assert_close(run(runtime, "text_embed", text_ids=ids), reference.text_embed(ids), "text_embed")


@BATCHES
def test_image_embed(runtime, reference, batch):
    ids = np.resize(np.arange(reference.num_codes), (batch, reference.num_codes)).astype(np.int32)
    assert_close(run(runtime, "image_embed", image_ids=ids), reference.image_embed(ids), "image_embed")


@BATCHES
def test_vision_encoder(runtime, reference, batch):
    pixels = noise_and_pictures(reference, batch)
    got, expected = run(runtime, "vision_encoder", pixels=pixels), reference.vision(pixels)
    for i in range(len(pixels)):
        assert_close(got[i], expected[i], f"vision_encoder, picture {i} of {len(pixels)}")


@BATCHES
@pytest.mark.parametrize("kind", ["text", "image"])
def test_heads(runtime, reference, kind, batch):
    # Twice the spread of a normed hidden state, so that the image head's GELU is used on both sides.
    hidden = 2 * np.random.default_rng(batch).standard_normal((batch, reference.width), np.float32)
    assert_close(run(runtime, f"{kind}_head", hidden=hidden), reference.head(kind, hidden), f"{kind}_head")


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("lengths", [(1,), (23,), (40, 3, 17)])
def test_language_model(runtime, reference, kind, lengths):
    """Prefill of rows of any lengths, then steps; random inputs use all of the embedding space."""
    rng = np.random.default_rng(len(lengths))
    prompts = [rng.standard_normal((length, reference.width), np.float32) for length in lengths]
    ids = rng.integers(0, reference.num_codes // 2, (6, len(lengths)), np.int32)
    with closing(open_session(runtime._engines, kind, rows=len(lengths), max_length=max(lengths) + len(ids))) as session:
        got = np.stack([prefill(session, prompts, kind), *(step(session, each) for each in ids)])
    for row, prompt in enumerate(prompts):
        expected = reference.logits(kind, np.concatenate([prompt, reference.embed(kind, ids[:, row])]))[-1 - len(ids) :]
        for index in range(len(got)):
            assert_close(got[index, row], expected[index], f"{kind} logits of row {row} (prompt of {lengths[row]}), step {index}")


@BATCHES
def test_image_decoder(runtime, reference, batch):
    ids = np.random.default_rng(batch).integers(0, reference.num_codes, (batch, reference.num_image_ids), np.int32)
    got, expected = run(runtime, "image_decoder", image_ids=ids), reference.decode(ids)
    assert expected.std() > 0.1, "the reference's picture is flat; equality with it would show nothing"
    for i in range(batch):
        assert_close(got[i], expected[i], f"image_decoder, picture {i} of {batch}")


@BATCHES
def test_image_encoder(runtime, reference, batch):
    pixels = noise_and_pictures(reference, batch)
    got = run(runtime, "image_encoder", pixels=pixels)
    distances = reference.code_distances(pixels)
    assert got.shape == distances.shape[:2]
    assert got.dtype == np.int32
    # Between two codes at the same distance rounding decides; any other choice than the nearest is wrong.
    excess = np.take_along_axis(distances, got[..., None].astype(np.int64), -1)[..., 0] - distances.min(-1)
    assert excess.max() <= FP32 * distances.max(), f"a code farther than the nearest was named, by {excess.max():.2e}"
    wrong = float((got != distances.argmin(-1)).mean())
    assert wrong <= NEAR_TIES, f"{wrong:.1%} of the ids are not the nearest code's"
    assert len(np.unique(got)) > reference.num_image_ids // 2, "nearly one id for all; equality would show nothing"


def test_image_encoder_is_the_original_not_plain_hf(runtime, reference):
    """transformers does not normalise before the search. Were the graph made so, most ids would be others."""
    pixels = noise_and_pictures(reference, 3)
    same = float((run(runtime, "image_encoder", pixels=pixels) == reference.plain_hf_codes(pixels)).mean())
    assert same < 0.5, f"{same:.1%} of the ids equal those of an encoder without normalisation"
