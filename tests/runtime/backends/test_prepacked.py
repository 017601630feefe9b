"""Weights that processes share: the same answers, written once, and an error where they cannot be."""

import os
import threading

import pytest

import janus_runtime
from janus_runtime.backends.prepacked import VARIABLE
from janus_runtime.errors import BackendError


def draw(bundle):
    with janus_runtime.load(bundle, backend="cpu") as janus:
        (picture,) = janus.generate("a red circle", seed=3)
        said = "".join(janus.describe(picture.image, "What is this?", max_tokens=8))
        return picture.image_ids.tolist(), picture.image.tobytes(), said


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_what_is_drawn_and_said_is_the_same(bundles, precision, tmp_path, monkeypatch):
    bundle = bundles(precision=precision)
    expected = draw(bundle)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "shared"))
    assert draw(bundle) == expected
    saved = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*") if path.is_file()}
    assert any(path.name.startswith("language_model") for path in saved) and not list(tmp_path.rglob(".part-*"))
    assert draw(bundle) == expected
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*") if path.is_file()} == saved


def test_another_bundle_has_its_own(bundles, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    draw(bundles())
    count = len(list(tmp_path.iterdir()))
    draw(bundles(precision="int8"))
    assert len(list(tmp_path.iterdir())) == 2 * count


def test_two_that_begin_together_share_one(bundles, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    found = []
    threads = [threading.Thread(target=lambda: found.append(draw(bundles(precision="int4")))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1]
    names = [next(folder.glob("*.onnx")).name for folder in tmp_path.iterdir()]
    assert sorted(names) == sorted(set(names))


def test_a_folder_that_cannot_be_written(bundles, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    with pytest.raises(BackendError, match=f"cannot be saved in .*file, which {VARIABLE} names: .*; name a folder that can be written"):
        draw(bundles())


@pytest.mark.parametrize(("stated", "told"), [("2", ", 2 threads"), ("0", ""), (None, "")])
def test_threads_of_a_process(bundles, monkeypatch, stated, told):
    monkeypatch.delenv("JANUS_THREADS", raising=False)
    if stated is not None:
        monkeypatch.setenv("JANUS_THREADS", stated)
    before = len(os.listdir("/proc/self/task"))
    with janus_runtime.load(bundles(), backend="cpu") as janus:
        janus.preload()
        assert janus.backend_description.endswith(f"on the CPU{told}")
        started = len(os.listdir("/proc/self/task")) - before
    if stated == "2":
        # A graph's caller is one of its two threads.
        assert started <= len(janus.manifest.graphs) + 4


@pytest.mark.parametrize("stated", ["many", "-1", "1.5", "5000"])
def test_threads_that_are_none(bundles, monkeypatch, stated):
    monkeypatch.setenv("JANUS_THREADS", stated)
    with pytest.raises(BackendError, match="JANUS_THREADS is .*; expected the number of cores"):
        janus_runtime.load(bundles(), backend="cpu")
