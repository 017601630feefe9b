"""A backend beside the CPU, by files that one process hands to the next."""

import json

from bench.gpu.parity import main
from janus_runtime.bundle.bundle import NANO


def test_logits_and_ids(run, tmp_path):
    for backend, fed in (("cpu", ()), ("stand-in-slice", ("--fed", tmp_path / "cpu.npz"))):
        result = run(main, "record", NANO, "--backend", backend, *fed, "--out", tmp_path / f"{backend}.npz")
        assert result.exit_code == 0, result.stderr
    result = run(main, "compare", tmp_path / "cpu.npz", tmp_path / "stand-in-slice.npz", "--out", tmp_path / "logits.json")
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "logits.json").read_text())
    assert report["passed"] and report["steps"] == 64 and report["drawn"] == "the same ids"


def test_records_of_other_pictures_are_refused(run, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        run(main, "record", NANO, "--backend", "cpu", "--seed", seed, "--out", tmp_path / f"{name}.npz")
    result = run(main, "compare", tmp_path / "a.npz", tmp_path / "b.npz", "--out", tmp_path / "logits.json")
    assert result.exit_code == 1 and "the records are of seed 0 and 1, expected the same" in result.stderr


def test_quality(run, tmp_path):
    for backend, baseline in (("cpu", ()), ("stand-in-gqa", ("--baseline", tmp_path / "cpu.json"))):
        options = ("--draws", 4, "--questions", 4, *baseline, "--out", tmp_path / f"{backend}.json")
        result = run(main, "quality", NANO, "--backend", backend, *options)
        assert result.exit_code == 0, result.stderr
    losses = json.loads((tmp_path / "stand-in-gqa.json").read_text())["losses"]
    assert losses and {row["failed"] for row in losses.values()} == {False}
