"""Which instructions a processor has."""

from pathlib import Path

import pytest

import janus_runtime
from janus_runtime.backends import ort_cpu, processor


@pytest.mark.parametrize(
    "flags, expected", [("fpu avx2 avx512_vnni", True), ("avx2 avx_vnni", True), ("fpu avx2 avx512f avx512_vnni_int8", False), ("", False)]
)
def test_vnni_is_one_of_the_flags(monkeypatch, flags, expected):
    text = f"processor : 0\nmodel name : any\nflags : {flags}\nprocessor : 1\nmodel name : any\nflags : {flags}\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert processor.has_vnni() is expected


def test_a_system_that_does_not_tell_has_none(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert processor.has_vnni() is False
    assert processor.processor()


@pytest.mark.skipif(not processor.has_vnni(), reason="this processor has one way alone")
@pytest.mark.parametrize("model", ["tiny", "tiny-flow"])
def test_the_way_without_vnni_gives_the_same_numbers(bundles, model, monkeypatch):
    def draw():
        with janus_runtime.load(bundles(model, precision="int8"), backend="cpu") as janus:
            (picture,) = janus.generate("a red circle", seed=3)
            said = "".join(janus.describe(picture.image, "What is this?", max_tokens=8))
            return picture.image.tobytes(), said

    expected = draw()
    monkeypatch.setattr(ort_cpu, "has_vnni", lambda: False)
    assert draw() == expected
