"""contract/reader.py, a runtime written from docs/bundle.md alone, says what ours says: the page is enough."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import janus_runtime
from janus_runtime.bundle.bundle import NANO
from testing import CONTRACT
from tests.marks import needs_int8_cache

READER = CONTRACT / "reader.py"


def read(*arguments):
    done = subprocess.run([sys.executable, READER, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
