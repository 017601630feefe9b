"""Paths that ONNX could not open are refused at the door."""

import os
import shutil

import pytest

from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.cli import main
from janus_runtime.errors import JanusError

BAD = os.fsdecode(b"b\xff")


@pytest.mark.parametrize("out", [BAD, f"{BAD}/new", f"new/{BAD}"])
def test_an_output_folder_that_is_not_utf8(run, checkpoints, tmp_path, monkeypatch, out):
    monkeypatch.setattr("janus_export.checkpoint.checkpoint.open_checkpoint", lambda *arguments, **options: pytest.fail("began"))
    result = run(main, "checkpoint", checkpoints("tiny"), "--out", tmp_path / out)
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert r"b\xff" in result.stderr and "is not valid UTF-8, and ONNX and ONNX Runtime open only paths in UTF-8" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_relative_folder_in_one_that_is_not_utf8(checkpoints, tmp_path, monkeypatch):
    checkpoint = open_checkpoint(str(checkpoints("tiny")))
    (tmp_path / BAD).mkdir()
    monkeypatch.chdir(tmp_path / BAD)
    with pytest.raises(JanusError, match="is not valid UTF-8"):
        export_bundle(checkpoint, tmp_path.__class__("out"), "fp32")
    assert list((tmp_path / BAD).iterdir()) == []


@pytest.mark.parametrize("verb", ["inspect", "checkpoint"])
def test_a_source_that_is_not_utf8(run, checkpoints, tmp_path, verb):
    source = shutil.copytree(checkpoints("tiny"), tmp_path / BAD)
    result = run(main, verb, source, *(["--out", tmp_path / "out"] if verb == "checkpoint" else []))
    assert result.exit_code == 1 and "is not valid UTF-8" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_utf8_and_not_there(run, tmp_path):
    result = run(main, "inspect", tmp_path / BAD)
    assert result.exit_code == 1 and r"b\xff" in result.stderr
