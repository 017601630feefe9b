"""What an export takes is measured in a process of its own, and nothing is left behind."""

import json

from bench.export import main


def test_time_and_memory_beside_a_copy(run, tmp_path):
    out = tmp_path / "results" / "export.json"
    result = run(main, "--model", "tiny", "--precision", "int8", "--draw", "int8", "--work", tmp_path / "work", "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    row = report["results"]["int8"]
    assert 0 < row["peak_gb"] < 4 and row["wall_s"] > report["copy_s"] >= 0 and report["model"] == "tiny"
    assert 0 < row["draw"]["peak_gb"] < 4 and row["draw"]["timings_ms"]["step"] > 0
    assert list((tmp_path / "work").iterdir()) == []


def test_a_picture_of_a_precision_that_is_not_exported(run, tmp_path):
    result = run(main, "--model", "tiny", "--precision", "int8", "--draw", "fp16", "--work", tmp_path / "work", "--out", tmp_path / "x")
    assert result.exit_code == 2 and "--draw fp16 needs --precision fp16" in result.output and not (tmp_path / "work").exists()
