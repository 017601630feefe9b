"""contract/reader.py, a runtime written from docs/bundle.md alone, says what ours says: the page is enough."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import janus_runtime
from janus_runtime.bundle.bundle import NANO
from janus_runtime.checks.tolerances import FP32
from janus_runtime.checks.verify import relative_difference
from testing.reader import READER
from testing.reader import run_reader as read
from tests.marks import needs_int8_cache


def test_it_knows_nothing_of_us():
    source = READER.read_text(encoding="utf-8")
    assert source.count("\n") <= 370 and not any(name in source for name in ("janus_runtime", "janus_export", "torch"))


@pytest.fixture(scope="module", params=["nano", "tiny-fp32", pytest.param("small-int4", marks=needs_int8_cache)])
def folder(request, bundles) -> Path:
    return NANO if request.param == "nano" else bundles(*request.param.split("-"))


@pytest.fixture(scope="module")
def janus(folder):
    with janus_runtime.load(folder, backend="cpu") as opened:
        yield opened


@pytest.mark.parametrize(
    ("prompt", "flags", "settings"),
    [
        ("a red circle", ("--seed", 3), {"seed": 3}),
        ("  two small green crosses\non black ", ("--seed", 2**63 + 1), {"seed": 2**63 + 1}),
        ("ein Fuchs 红", ("--temperature", 0), {"temperature": 0}),
        ("a fox", ("--top-k", 40, "--cfg-weight", 2), {"top_k": 40, "cfg_weight": 2.0}),
        ("a fox", ("--top-p", 0.8, "--temperature", 0.7), {"top_p": 0.8, "temperature": 0.7}),
    ],
)
def test_draw(folder, janus, prompt, flags, settings):
    (picture,) = janus.generate(prompt, **settings)
    assert read("draw", folder, prompt, *flags) == {"image_ids": picture.image_ids.tolist()}


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=needs_int8_cache)])
@pytest.mark.parametrize(
    ("prompt", "settings"),
    [
        ("a fox", {}),
        ("  ein Fuchs 红 \n", {"solver": "ab2", "seed": 2**63 + 1}),
        ("a cat on a mat " * 12, {"solver": "ab2", "steps": 4, "cfg_weight": 3.0}),
        ("a fox", {"solver": "euler", "steps": 1}),
    ],
)
def test_draw_by_a_flow(bundles, precision, prompt, settings):
    folder = bundles("tiny-flow", precision)
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    with janus_runtime.load(folder, backend="cpu") as flow:
        (picture,) = flow.generate(prompt, **settings)
    latents = np.float32(read("draw", folder, prompt, *flags)["latents"])
    assert relative_difference(latents, picture.latents.ravel()) <= FP32


@pytest.mark.parametrize("flags", [("--steps", 0), ("--steps", 10_001), ("--temperature", 0.5), ("--top-k", 3)], ids=str)
def test_what_a_flow_refuses(bundles, flags):
    done = subprocess.run([sys.executable, READER, "draw", bundles("tiny-flow"), "x", *map(str, flags)], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "1 to 10000 steps" in done.stderr


def test_a_solver_is_not_for_ids(bundles):
    done = subprocess.run([sys.executable, READER, "draw", NANO, "x", "--solver", "ab2"], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "JanusFlow's" in done.stderr


@pytest.mark.parametrize("size", [(90, 30), (30, 90)])
def test_ask(folder, janus, tmp_path, size):
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").convert("RGB").resize(size).save(path)
    expected = "".join(janus.describe(path, "What is this?", max_tokens=12))
    assert read("ask", folder, path, "What is this?", "--max-tokens", 12) == {"text": expected}


def test_a_bundle_of_another_format(tmp_path):
    for path in NANO.iterdir():
        (tmp_path / path.name).symlink_to(path)
    raw = json.loads((NANO / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps({**raw, "format": 4}), encoding="utf-8")
    done = subprocess.run([sys.executable, READER, "draw", tmp_path, "x"], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "format" in done.stderr
