"""Kills at random times, each judged by what it leaves."""

import json
import shutil
import subprocess
import sys

import pytest

from bench import kills
from bench.kills import check_whole, main
from janus_runtime.errors import JanusError
from janus_runtime.manifest import WEIGHTS


def test_no_kill_leaves_half_a_bundle(run, checkpoints, tmp_path):
    out = tmp_path / "results" / "kills.json"
    result = run(main, checkpoints("tiny"), "--kills", "2", "--work", tmp_path / "work", "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    # An export may finish before its time: it is in the report and does not count.
    assert [row["bundle_before"] for row in report["kills"]] == [index % 2 == 1 for index in range(len(report["kills"]))]
    assert sum(not row["finished"] for row in report["kills"]) == 2 and report["weights_after_equal"]
    assert list((tmp_path / "work").iterdir()) == []


def test_an_export_that_fails_by_itself_is_no_kill(run, checkpoints, tmp_path, monkeypatch):
    """The first export, which measures the time, is a real one; those after it end at once."""
    real = kills.start
    calls = []

    def start(*arguments):
        calls.append(arguments)
        return real(*arguments) if len(calls) == 1 else subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(kills, "start", start)
    monkeypatch.setattr(kills.random.Random, "uniform", lambda self, low, high: high)
    result = run(main, checkpoints("tiny"), "--kills", "2", "--work", tmp_path / "work", "--out", tmp_path / "kills.json")
    assert result.exit_code == 1 and "the export ended with 3 by itself" in result.output and not (tmp_path / "kills.json").exists()


def test_a_bundle_that_lacks_a_byte_is_noticed(tiny, tmp_path):
    bundle = shutil.copytree(tiny, tmp_path / "bundle")
    check_whole(bundle)
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (bundle / WEIGHTS).write_bytes(data)
    with pytest.raises(JanusError, match="weights.data was altered: sha256"):
        check_whole(bundle)
