"""Drawing from a picture the way that Janus-4o's published loop does, written out on transformers' modules."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from janus_runtime.cli import main
from janus_runtime.errors import BundleError
from testing.reference import example_images
from tests.parity.compare import assert_same_ids

PROMPT = "a red circle left of the blue square"


def three_rows(reference, image) -> list[np.ndarray]:
    """Embeddings [T, D]: the picture seen and as ids, seen only, and all pads; a pad stands where an id would."""
    special, count = reference.special, reference.num_image_ids
    pixels = reference.pixels(image)[None]
    user, assistant = reference.roles
    head, tail = reference.encode(f"{user}: "), reference.encode(f"{PROMPT}\n\n{assistant}:")[1:]
    seen = [special.begin_of_image, *[special.image_placeholder] * count, special.end_of_image]
    drawn = [special.begin_of_image, *[special.pad] * count, special.end_of_image]
    ids = np.array([*head, *seen, *drawn, *tail, special.begin_of_image])
    part = reference.prompt_embeds(ids, pixels)
    full = part.copy()
    full[ids == special.pad] = reference.image_embed(reference.code_distances(pixels).argmin(-1)[0])
    return [full, part, reference.text_embed(reference.unconditional(ids))]


def greedy(reference, rows: list[np.ndarray], cfg_weight: float, image_weight: float) -> tuple[np.ndarray, float]:
    drawn, lead = [], np.inf
    for _ in range(reference.num_image_ids):
        full, part, uncond = (reference.head("image", reference.hidden(row)[-1:])[0] for row in rows)
        scores = uncond + cfg_weight * ((full + image_weight * part) / (1 + image_weight) - uncond)
        second, first = np.partition(scores, -2)[-2:]
        lead = min(lead, float(first - second))
        drawn.append(int(scores.argmax()))
        rows = [np.concatenate([row, reference.image_embed(np.array(drawn[-1:]))]) for row in rows]
    return np.array(drawn), lead


@pytest.mark.parametrize("weights", [(5.0, 5.0), (3.0, 0.0)])
def test_greedy_ids(runtime, reference, weights):
    # Of the square size, so that what the reference scales is what the runtime scales.
    (image,) = example_images(3, [(2 * reference.image_size, reference.image_size)])
    expected, lead = greedy(reference, three_rows(reference, image), *weights)
    pictures = runtime.generate(PROMPT, n=2, temperature=0, cfg_weight=weights[0], image=image, image_weight=weights[1])
    for picture in pictures:
        assert_same_ids(picture.image_ids, expected, lead, f"weights {weights}")


def test_what_counts(runtime, reference):
    """Picture, weight and prompt each change what is drawn."""
    first, second = example_images(3, [(reference.image_size,) * 2] * 2)

    def ids(image=first, prompt=PROMPT, **settings):
        return runtime.generate(prompt, seed=1, image=image, **settings)[0].image_ids.tolist()

    drawn = [ids(), ids(second), ids(image_weight=0.0), ids(prompt="fox"), ids(None)]
    assert len(set(map(tuple, drawn))) == len(drawn) and ids() == drawn[0]


def test_two_prompts_at_once(runtime, reference):
    (image,) = example_images(3, [(reference.image_size,) * 2])
    together = runtime.generate([PROMPT, "fox"], n=2, seed=1, image=image)
    for picture in together:
        (alone,) = runtime.generate(picture.prompt, seed=picture.seed, image=image)
        assert alone.image_ids.tolist() == picture.image_ids.tolist()


def test_it_says_that_checkpoints_must_be_trained_for_it(runtime, reference, caplog):
    (image,) = example_images(3, [(reference.image_size,) * 2])
    runtime.generate(PROMPT, image=image)
    assert "for checkpoints trained for it, such as Janus-4o" in caplog.text
    with pytest.raises(ValueError, match="image_weight is -1; expected 0 to 1000"):
        runtime.generate(PROMPT, image=image, image_weight=-1)
    with pytest.raises(ValueError, match="there is none; give image too, or leave it out"):
        runtime.generate(PROMPT, image_weight=5.0)


def test_on_the_command_line(run, bundles, model, reference, tmp_path):
    """What the picture was and what it counted are in the PNG; its encoding is timed."""
    for name, image in zip("ab", example_images(3, [(reference.image_size,) * 2] * 2), strict=True):
        image.save(tmp_path / f"{name}.png")
    written = []
    for image, *options in (["a"], ["b"], ["a", "--image-weight", "0"]):
        path = tmp_path / f"{image}.png"
        common = ("--n", 1, "--bundle", bundles(model), "--out", tmp_path / "out", "--json")
        result = run(main, "generate", PROMPT, "--image", path, *common, *options)
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert report["timings"]["encode"] > 0
        written.append(Image.open(report["file"]).text)
    assert [text["image_weight"] for text in written] == ["5.0", "5.0", "0.0"]
    assert written[0]["image_sha256"] == written[2]["image_sha256"] != written[1]["image_sha256"]
    plain = run(main, "generate", PROMPT, *common)
    report = json.loads(plain.stdout)
    assert "encode" not in report["timings"] and not {"image_sha256", "image_weight"} & set(Image.open(report["file"]).text)


def test_half_a_bundle(runtime, reference, monkeypatch):
    """What is seen takes the understanding half."""
    (image,) = example_images(3, [(reference.image_size,) * 2])
    manifest = runtime.manifest
    half = dataclasses.replace(runtime._engines.bundle, manifest=dataclasses.replace(manifest, tasks=("generation",)))
    monkeypatch.setattr(runtime._engines, "bundle", half)
    with pytest.raises(BundleError, match="exported for generation only, not for understanding"):
        runtime.generate(PROMPT, image=image)
