"""The harness times ours and the rivals in the same stages, and its report says what was measured."""

import json
import sys
from pathlib import Path

import pytest

from bench.cpu.latency import main, picture_ms
from janus_runtime.checks.latency import Timing


def test_ours_beside_transformers(run, bundles, checkpoints, tmp_path):
    out = tmp_path / "results" / "latency.json"
    checkpoint = checkpoints("tiny", "hf")
    result = run(main, "--bundle", bundles("tiny"), "--bundle", bundles("tiny", "int8"), "--checkpoint", checkpoint,
                 "--rival", "fp32", "--rival", "bf16", "--seconds", 1, "--out", out, "--debug")  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert list(report["results"]) == ["janus-rt fp32", "janus-rt int8", "transformers fp32", "transformers bf16"]
    stages = [list(row) for row in report["results"].values()]
    assert stages[0] == stages[1] and stages[2] == stages[3] and len(stages[2]) == 8
    assert [stage for stage in stages[0] if stage != "image preview"] == stages[2]
    ours, theirs = (report["results"][name]["image step, late"]["reads"] for name in ("janus-rt fp32", "transformers fp32"))
    # The same weights and cache; ours also has the tables of the rotary embedding.
    assert theirs <= ours <= 1.2 * theirs
    assert set(report["load_s"]) == set(report["results"])
    assert {"machine", "versions", "commit", "bandwidth_gb_per_s", "rows", "random_weights"} <= set(report)
    assert result.stdout.count("picture") == 4


def test_a_rival_needs_its_checkpoint(run, tiny):
    result = run(main, "--bundle", tiny, "--rival", "fp32")
    assert result.exit_code == 2 and "rivals need --checkpoint" in result.stderr


def test_beside_an_earlier_version(run, tiny, tmp_path):
    tree, out = Path(__file__).parents[3], tmp_path / "latency.json"
    result = run(main, "--bundle", tiny, "--earlier", tree, tiny, "--only", "text", "--seconds", 0.5, "--out", out, "--debug")
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    ours, theirs = report["results"].values()
    assert list(report["results"]) == ["janus-rt fp32", "earlier fp32"] and list(ours) == list(theirs) == ["text prefill", "text step"]
    assert report["others"]["earlier fp32"]["versions"] and theirs["text step"]["reads"] == ours["text step"]["reads"] > 0


@pytest.mark.parametrize("option, name", [("--openvino", "OpenVINO int8"), ("--llama-cpp", "llama.cpp Q4_0")])
def test_an_environment_without_a_rival(run, checkpoints, tiny, option, name):
    result = run(main, "--bundle", tiny, "--checkpoint", checkpoints("tiny", "hf"), option, sys.executable)
    assert result.exit_code == 1
    assert f"{name}'s process ended with exit code 1 before it was ready" in result.stderr and "make bench-rivals" in result.stderr


def test_no_bundle_hides_another(run, tiny):
    result = run(main, "--bundle", tiny, "--bundle", tiny)
    assert result.exit_code == 1 and "two bundles are fp32" in result.stderr


def test_a_picture_is_the_sum_of_its_stages():
    times = {"image prefill": 10, "image step, early": 1, "image step, middle": 2, "image step, late": 3, "image decode": 5}
    timings = {name: Timing(name, ms, ms, 1, 0) for name, ms in times.items()}
    assert picture_ms(timings, 101) == pytest.approx(10 + 100 * 2 + 5)
