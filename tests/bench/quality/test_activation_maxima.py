"""The look before fp16: what is seen is what the graphs compute, and what would overflow is named."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from bench.quality.activation_maxima import main
from janus_runtime.pictures.image import preprocess


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


def test_what_is_seen_is_what_the_graphs_compute(run, checkpoints, tiny, janus, picture, tmp_path):
    result = run(main, checkpoints("tiny", "hf"), tiny, "--image", picture, "--out", tmp_path / "results" / "maxima.json")
    assert result.exit_code == 0, result.output
    maxima = json.loads((tmp_path / "results" / "maxima.json").read_text())["maxima"]
    pixels = preprocess(Image.open(picture), janus.manifest.image_input)
    assert maxima["vision_encoder"] == pytest.approx(np.abs(janus._engines.encode_image(pixels)).max(), rel=1e-4)
    layers = {name.split(".")[2] for name in maxima if name.startswith("language_model.layers.")}
    assert layers == {str(index) for index in range(janus.manifest.language_model.num_layers)}
    for part in ("text_embed", "text_head", "image_head", "image_embed", "language_model.layers.0.down input"):
        assert any(name.startswith(part) for name in maxima), part
    assert not any(name.startswith("image_encoder") for name in maxima), "runs in fp32 in every precision"


def test_what_would_overflow_is_named(run, checkpoints, tiny, picture, tmp_path):
    large = shutil.copytree(checkpoints("tiny", "hf"), tmp_path / "large")
    weights = load_file(large / "model.safetensors")
    weights["model.language_model.layers.1.mlp.down_proj.weight"] *= 1e6
    save_file(weights, large / "model.safetensors")
    result = run(main, large, tiny, "--image", picture)
    assert result.exit_code == 1
    assert "language_model.layers.1" in result.stderr and "fp16 ends at 65504" in result.stderr
