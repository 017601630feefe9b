"""`python -m nano` from nothing to a checkpoint that exports, at a few steps a stage."""

import subprocess
import sys
from pathlib import Path

from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from nano.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


def train(folder):
    command = [sys.executable, "-m", "nano", "--out", folder / "checkpoint", "--work", folder / "work", "--quick", "20000"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_from_nothing_to_a_bundle(tmp_path):
    said = train(tmp_path)
    assert [
        name for name in ("vq: step 1 of 1", "tower: step 1 of 1", "decoder: step 1 of 1", "dB on 200 scenes") if name not in said
    ] == []
    first = (tmp_path / "checkpoint" / "model.safetensors").read_bytes()
    assert len(first) <= 8_000_000
    # Every stage has ended, so that the second run only writes the checkpoint again.
    assert "step" not in train(tmp_path)
    assert (tmp_path / "checkpoint" / "model.safetensors").read_bytes() == first
    manifest = export_bundle(open_checkpoint(str(tmp_path / "checkpoint")), tmp_path / "bundle", "int8", "understanding")
    assert not manifest.random_weights and manifest.family == "janus-pro"


def test_what_is_not_ours_is_not_replaced(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    result = run(main, "--out", tmp_path, "--work", tmp_path / "work")
    assert result.exit_code == 1 and "holds what is no part of janus-nano (thesis.txt)" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_state_is_one_line(run, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "vq.pt").write_bytes(b"rubbish")
    result = run(main, "--out", tmp_path / "out", "--work", tmp_path / "work")
    assert result.exit_code == 1 and "vq.pt is no state of a stage" in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "out").exists()
