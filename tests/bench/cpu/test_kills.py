"""Kills at random times, each judged by what it leaves."""

import json
import shutil
import subprocess
import sys

import pytest

import janus_export.cli
from bench.cpu import kills
from bench.cpu.kills import check_whole, main
from janus_runtime.bundle.bundle import NANO
from janus_runtime.bundle.manifest import WEIGHTS
from janus_runtime.errors import JanusError

# Writes a bundle as an export does, and in no more than a second.
WRITE = """
import shutil, sys, time
from pathlib import Path
from janus_export.aside import aside
with aside(Path(sys.argv[2]), "export") as folder:
    for path in sorted(Path(sys.argv[1]).iterdir()):
        shutil.copyfile(path, folder / path.name)
        time.sleep(0.05)
"""


@pytest.fixture
def quick(monkeypatch):
    """What is killed copies a bundle: `quick` is given as the checkpoint."""
    monkeypatch.setattr(kills, "start", lambda bundle, out, precision: subprocess.Popen([sys.executable, "-c", WRITE, bundle, str(out)]))
    return NANO


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_no_kill_leaves_half_a_bundle(run, quick, tmp_path, kills):
    out = tmp_path / "results" / "kills.json"
    result = run(main, quick, "--kills", kills, "--work", tmp_path / "work", "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    # An export may finish before its time: it is in the report and does not count.
    assert [row["bundle_before"] for row in report["kills"]] == [index % 2 == 1 for index in range(len(report["kills"]))]
    assert sum(not row["finished"] for row in report["kills"]) == kills and report["weights_after_equal"]
    assert list((tmp_path / "work").iterdir()) == []


def test_an_export_that_fails_by_itself_is_no_kill(run, quick, tmp_path, monkeypatch):
    """The first export measures the time; those after it end at once."""
    real = kills.start
    calls = []

    def start(*arguments):
        calls.append(arguments)
        return real(*arguments) if len(calls) == 1 else subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(kills, "start", start)
    monkeypatch.setattr(kills.random.Random, "uniform", lambda self, low, high: high + 5)
    result = run(main, quick, "--kills", "2", "--work", tmp_path / "work", "--out", tmp_path / "kills.json")
    assert result.exit_code == 1 and "the export ended with 3 by itself" in result.output and not (tmp_path / "kills.json").exists()


def test_what_is_killed_is_an_export(run, checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(kills.subprocess, "Popen", lambda command: command)
    python, _, module, *arguments = kills.start(str(checkpoints("tiny")), tmp_path / "out", "int8")
    assert (python, module) == (sys.executable, "janus_export.cli")
    assert run(janus_export.cli.main, *arguments).exit_code == 0
    check_whole(tmp_path / "out")


def test_a_bundle_that_lacks_a_byte_is_noticed(tmp_path):
    bundle = shutil.copytree(NANO, tmp_path / "bundle")
    check_whole(bundle)
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (bundle / WEIGHTS).write_bytes(data)
    with pytest.raises(JanusError, match="weights.data was altered: sha256"):
        check_whole(bundle)
