"""Both decoders get the same ids, and a bundle without a preview is refused."""

import json

import pytest

from bench.quality.preview_quality import main
from janus_runtime.bundle.bundle import NANO


def test_janus_nano(run, tmp_path):
    result = run(main, NANO, "--draws", 8, "--out", tmp_path / "results" / "preview.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "results" / "preview.json").read_text())
    assert report["psnr_db"]["worst"] > 30 and report["levels"]["worst"] > 0
    assert report["scores"]["image_preview"]["shape"] == report["scores"]["image_decoder"]["shape"] == 1
    assert report["time_of_the_decode"] == pytest.approx(report["ms"]["image_preview"] / report["ms"]["image_decoder"])


def test_without_a_preview(run, bundles):
    result = run(main, bundles("tiny", "fp16"), "--draws", 1)
    assert result.exit_code == 1 and "has no image_preview" in result.stderr
