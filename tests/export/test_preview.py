"""The decoder of previews: calibrated on made pictures, judged on others, left out where it is bad."""

import numpy as np
import pytest

import janus_runtime
from janus_export import preview as preview_module
from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.made_pictures import made_pictures
from janus_export.onnx import int8_convs
from janus_export.preview import calibrate_preview
from janus_runtime.bundle.bundle import NANO, Bundle
from janus_runtime.checks.tolerances import PREVIEW_LEVELS, PREVIEW_PSNR_DB
from janus_runtime.pictures.difference import levels, psnr_db
from testing import ROOT
from testing.judged import assert_judged_alike

NANO_CHECKPOINT = ROOT / "nano" / "janus-nano"


def calibrate():
    opened = open_checkpoint(str(NANO_CHECKPOINT))
    return calibrate_preview(opened.config, opened.tensors)


def test_what_is_predicted_is_what_is_stored_and_what_runs():
    """The exporter judges in torch; ONNX Runtime computes the same dB with what lies in the bundle."""
    preview, graph = calibrate(), Bundle.open(NANO).manifest.graphs["image_preview"]
    assert preview.refusal is None
    assert_judged_alike(graph.judged, preview.judged)
    assert graph.format.weights == "int8" and graph.judged["pictures"] == 12
    ids, reference = preview.goldens["image_preview/image_ids"], preview.goldens["image_preview/pixels"]
    with janus_runtime.load(NANO, backend="cpu") as janus:
        got, exact = (janus._engines[name].run({"image_ids": ids})["pixels"] for name in ("image_preview", "image_decoder"))
    assert psnr_db(got, reference) == pytest.approx(preview.judged["psnr_db"], abs=0.3)
    assert psnr_db(exact, reference) > 80 and levels(got, reference) <= preview.judged["levels"] + 2


def test_a_decoder_made_worse_is_refused(checkpoints, tmp_path, monkeypatch):
    """Weights of three numbers in place of 127."""
    monkeypatch.setattr(int8_convs, "WEIGHT_LIMIT", 2)
    preview = calibrate()
    assert preview.judged["psnr_db"] < PREVIEW_PSNR_DB and "the bundle has no image_preview" in preview.refusal
    notes = []
    monkeypatch.setattr(preview_module, "PREVIEW_PSNR_DB", 100.0)  # what no tiny decoder reaches with any weights
    manifest = export_bundle(open_checkpoint(str(checkpoints("tiny"))), tmp_path / "out", "int8", only="generation", on_note=notes.append)
    (note,) = notes
    assert "image_preview" not in manifest.graphs and "grey levels" in note and "decoded in fp32" in note
    assert not (tmp_path / "out" / "image_preview.onnx").exists()
    with janus_runtime.load(tmp_path / "out", backend="cpu") as janus:
        assert janus._engines.preview == "image_decoder"


@pytest.mark.parametrize(
    ("psnr", "number", "kept"),
    [(PREVIEW_PSNR_DB, PREVIEW_LEVELS, True), (PREVIEW_PSNR_DB - 0.1, 1.0, False), (60.0, PREVIEW_LEVELS + 0.1, False)],
)
def test_the_gate(psnr, number, kept):
    judged = {"psnr_db": psnr, "levels": number, "pictures": 3.0}
    assert (preview_module.Preview({}, judged, {}).refusal is None) == kept


def test_fp16_and_a_bundle_that_only_answers_have_none(bundles):
    for folder in (bundles("tiny", "fp16"), bundles("tiny", only="understanding")):
        assert "image_preview" not in Bundle.open(folder).manifest.graphs


def test_made_pictures_are_all_different_and_always_the_same():
    pictures = made_pictures(12, 64, seed=1)
    assert pictures.shape == (12, 3, 64, 64) and pictures.dtype == np.float32 and np.abs(pictures).max() <= 1
    assert len({picture.tobytes() for picture in pictures}) == 12
    assert (pictures == made_pictures(12, 64, seed=1)).all() and (pictures[5:] == made_pictures(7, 64, seed=1, first=5)).all()
    assert not (pictures == made_pictures(12, 64, seed=2)).all(axis=(1, 2, 3)).any()
    # Edges, and more than a few colours.
    assert (np.abs(np.diff(pictures, axis=-1)).max((1, 2, 3)) > 0.2).all() and pictures.std((2, 3)).mean() > 0.2
