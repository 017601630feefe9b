"""Agreement is perfect with oneself, less than perfect with fewer bits, and the divergence is what its formula says."""

import json

import numpy as np
import pytest

from bench.quality.agreement import compare, main


def test_with_itself_and_with_fewer_bits(run, bundles, tiny, tmp_path):
    result = run(main, tiny, tiny, bundles("tiny", "int4"), "--out", tmp_path / "agreement.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "agreement.json").read_text())
    for row in report["results"]["fp32"].values():
        assert row["top1"] == 1 and row["kl_mean"] == 0
    for row in report["results"]["int4"].values():
        assert row["top1"] < 1 and 0 < row["kl_mean"] < 1
    assert report["random_weights"] and report["steps"] == 16


def test_another_model_is_refused(run, bundles, tiny):
    result = run(main, tiny, bundles("small"))
    assert result.exit_code == 1 and "is not the same model as" in result.stderr


def test_no_bundle_hides_another(run, tiny):
    result = run(main, tiny, tiny, tiny)
    assert result.exit_code == 1 and "two bundles are fp32" in result.stderr


def test_the_divergence():
    ours, theirs = np.log(np.array([[[0.5, 0.5], [0.25, 0.75]], [[0.25, 0.75], [0.25, 0.75]]], np.float32))
    row = compare(ours, theirs)
    assert row["kl_mean"] == pytest.approx((0.25 * np.log(0.5) + 0.75 * np.log(1.5)) / 2, rel=1e-5)
    assert row["top1"] == 0.5
