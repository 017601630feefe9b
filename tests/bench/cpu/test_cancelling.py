"""The time until a cancelled drawing is gone is measured on drawings that are cancelled."""

import json

from bench.cpu.cancelling import main


def test_cancelled_drawings(run, bundles, tmp_path):
    out = tmp_path / "cancelling.json"
    result = run(main, bundles("tiny-flow"), "--count", 2, "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert len(report["step_s"]) == len(report["cancelled_s"]) == 2 and report["random_weights"]
    assert run(main, bundles("tiny")).exit_code == 1
