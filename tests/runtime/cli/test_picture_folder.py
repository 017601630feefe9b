"""Pictures on disk, from several writers at once and under odd names."""

import os
from types import SimpleNamespace

import pytest
from PIL import Image

from janus_runtime.cli.picture_folder import PictureFolder
from janus_runtime.drawing.request import DrawSettings, GeneratedImage


def picture(prompt="fox"):
    image = Image.new("RGB", (8, 8), "red")
    return GeneratedImage(image, None, None, prompt, 0, DrawSettings(5.0, 1.0, 0, 1.0, *[None] * 5), {})


def folder(path, model="tiny"):
    return PictureFolder(path, SimpleNamespace(manifest=SimpleNamespace(name=model, precision="fp32"), backend="cpu"))


@pytest.mark.parametrize("links", [True, False])
def test_a_second_writer_of_the_same_process_id(tmp_path, monkeypatch, links):
    """Containers have equal process ids: the second writes the same picture while the first is at it."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    save, paths = Image.Image.save, []

    def save_between(image, file, **options):
        if not paths:
            paths.append(None)
            paths.append(folder(tmp_path).save(picture()))
        save(image, file, **options)

    monkeypatch.setattr(os, "getpid", lambda: 7)
    monkeypatch.setattr(Image.Image, "save", save_between)
    paths[0:1] = [folder(tmp_path).save(picture())]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000-fox-seed0.png", "001-fox-seed0.png"]
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.load()


def test_a_killed_writer_costs_one_number(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    (tmp_path / ".000-fox-seed0.png.claim").touch()
    assert folder(tmp_path).save(picture()).name == "001-fox-seed0.png"


def test_a_model_whose_name_is_no_utf8(tmp_path):
    with Image.open(folder(tmp_path, "b\udcff").save(picture())) as image:
        assert image.text["model"] == "b\\xff"
