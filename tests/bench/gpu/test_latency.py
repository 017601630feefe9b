"""What is measured on a GPU, and compared with the CPU and with torch: on stand-ins, where every number can be foretold."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from bench.gpu import latency, rivals
from bench.gpu.machine import open_janus
from bench.gpu.parity import compare, main, parting, predict, record
from bench.gpu.plans import kernels
from janus_runtime.bundle.bundle import NANO
from janus_runtime.errors import JanusError
from testing.numpy_device import NumpyDevice


def test_windows_are_within_the_picture():
    for steps in (16, 64, 576):
        found = latency.windows(steps)
        assert list(found) == ["early", "middle", "late", "all"]
        assert all(0 <= first < last <= steps - 2 for first, last in found.values())
    assert latency.windows(576)["late"] == (517, 574)


def test_a_step_s_share_of_its_floor():
    """Steps of 2 ms that must read 4 GB and 6 GB at 4000 GB/s: 1 to 1.5 ms."""
    times = [[0.002 * step for step in range(101)], [0.002 * step for step in range(101)], [0.05 * step for step in range(101)]]
    report = latency.step_report(times, (4_000_000_000, 6_000_000_000), 4000)
    assert report["middle"]["ms"] == pytest.approx(2)
    assert report["middle"]["reads"] == pytest.approx(5e9, rel=0.01) and report["middle"]["share"] == pytest.approx(0.625, rel=0.01)
    assert report["early"]["share"] == pytest.approx(0.51, rel=0.02) and report["late"]["share"] == pytest.approx(0.73, rel=0.02)


def test_a_copy_reads_and_writes(monkeypatch):
    """Ten copies of 1 MiB, each read and written, in the shortest of passes of 5 to 1 s."""
    looks = iter(np.cumsum([0, 5, 1, 4, 1, 3, 1, 2, 1, 1, 1, 5]))
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: float(next(looks))))
    assert latency.copy_bandwidth(NumpyDevice(), 1 << 20) == pytest.approx(10 * 2 * (1 << 20) / 1e9)


@pytest.fixture(scope="module")
def stand_in():
    with open_janus(str(NANO), "stand-in-slice") as janus:
        yield janus


def test_other_rows_than_asked_for_are_no_measurement(stand_in):
    with pytest.raises(JanusError, match="4 rows were asked for, the plans have 2, 8, 16, 32; build them with --rows 4"):
        latency.image_steps(stand_in._engines, 4, 1)


def test_the_first_record_is_the_cpu_s(stand_in):
    with open_janus(str(NANO), "cpu") as janus:
        theirs = record(janus, "a red circle", 3, None)
    ours = record(stand_in, "a red circle", 3, theirs["ids"])
    assert (theirs["drawn"] == theirs["ids"]).all()
    report = compare(theirs, ours)
    assert report["passed"] and report["drawn"] == "the same ids" and report["difference"] < 1e-5
    assert report["baseline"]["backend"] == "cpu" and report["other"]["backend"] == "stand-in"

    wrong = {**ours, "logits": ours["logits"].copy()}
    wrong["logits"][-1, 0, 0] += 0.01 * np.abs(theirs["logits"]).max()
    report = compare(theirs, wrong)
    assert not report["passed"] and report["difference_last_tenth"] == pytest.approx(0.01, rel=0.01)

    other = {**ours, "drawn": ours["drawn"].copy()}
    other["drawn"][7:] = (other["drawn"][7:] + 1) % 512
    parted = parting(theirs, other["drawn"], 3, 5.0)
    assert parted["step"] == 7 and parted["expected"] == theirs["ids"][7] and parted["margin"] > 0
    assert not compare(theirs, other)["passed"]  # in fp32 on both sides only a tie may part

    with pytest.raises(JanusError, match="fed different ids"):
        compare(theirs, {**ours, "ids": ours["ids"] + 1})
    with pytest.raises(JanusError, match="the records are of seed 3 and 4"):
        compare(theirs, record(stand_in, "a red circle", 4, theirs["ids"]))


def test_the_last_step_is_fed_to_rows_of_a_larger_plan():
    from janus_runtime.bundle.bundle import Bundle
    from janus_runtime.janus import janus_over
    from testing.stand_in import StandIn

    bundle = Bundle.open(NANO)
    wide = janus_over(bundle, StandIn(rows=(1, 8), lengths=(320,), chunk=128))
    with open_janus(str(NANO), "cpu") as janus:
        ids, theirs = predict(janus, "a red circle", 0, 5.0)
    _, ours = predict(wide, "a red circle", 0, 5.0, fed=ids)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_graph_that_computes_something_else(run, stand_in, monkeypatch, tmp_path):
    """It fails, and the report is there all the same."""
    from bench.gpu import parity

    def broken(bundle, backend):
        janus = open_janus(bundle, backend)
        janus._engines["image_head"].after = lambda tensors: tensors["logits"].__imul__(1.01)
        return janus

    monkeypatch.setattr(parity, "open_janus", broken)
    result = run(main, "verify", NANO, "--backend", "stand-in-slice", "--out", tmp_path / "verify.json")
    assert result.exit_code == 1 and "image_head of" in result.stderr
    rows = json.loads((tmp_path / "verify.json").read_text())["results"]
    assert [name for name, row in rows.items() if not row["passed"]] == ["image_head"]


def test_quality_asks_the_same_of_both(run, tmp_path):
    (tmp_path / "cpu.json").write_text(json.dumps({"draws": 9, "questions": 8, "outcomes": {}}))
    settings = ("--draws", 8, "--questions", 8, "--baseline", tmp_path / "cpu.json", "--out", tmp_path / "out.json")
    result = run(main, "quality", NANO, "--backend", "cpu", *settings)
    assert result.exit_code == 1 and "is of 9 draws and 8 questions, expected 8 and 8" in result.stderr


def test_what_the_inspector_lists():
    layers = [{"Name": "a", "LayerType": "CaskGemm"}, {"LayerType": "NoOp"}, {"LayerType": "Reformat"}, {"LayerType": "CaskGemm"}, "x"]
    assert kernels(json.dumps({"Layers": layers})) == {"kernels": 4, "kinds": {"CaskGemm": 2, "Reformat": 1, "unknown": 1}}


def test_rivals(run, tmp_path, monkeypatch):
    """The way that CUDA alone has must not cost the others; torch.compile is run by the steps of gpu_check.

    On a clock that goes on by a second whenever it is looked at: once each for prefill, picture and end, and for each of 16 marks.
    """
    monkeypatch.setattr(rivals, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    ways = [word for way in ("eager", "static", "captured") for word in ("--way", way)]
    out = tmp_path / "rivals.json"
    sizes = ("--model", "tiny", "--device", "cpu", "--dtype", "fp32", "--compiler", "eager", "--repeats", 1)
    result = run(rivals.main, *sizes, *ways, "--out", out)
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())["results"]
    assert "CUDA" in results.pop("captured")["error"]
    for row in results.values():
        steps = dict.fromkeys(("step early", "step middle", "step late", "step all"), 1000)
        assert row.items() >= {"prefill": 1000, "decode": 1000, "picture": 1000 * (1 + 16 + 2), **steps}.items()
    result = run(rivals.main, *sizes, "--way", "captured", "--out", out)
    assert result.exit_code == 1 and "no way of torch's ran" in result.stderr
