"""The sections for a GPU machine run here as they would there, at tiny sizes, over stand-ins; one that fails takes no other along."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import janus_runtime
from bench.gpu import first
from bench.gpu import place as place_module
from bench.gpu.place import Place, Skipped
from bench.gpu.sections import SECTIONS
from janus_runtime.bundle.bundle import NANO

ROOT = Path(__file__).resolve().parents[3]


def start(out, *arguments):
    command = [sys.executable, "-m", "bench.gpu.first", "--stand-ins", "--work", out / "work", "--out", out, *arguments]
    result = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    lines = [json.loads(line) for line in (out / "first.jsonl").read_text().splitlines()]
    return result, {line["section"]: line for line in lines}


def test_every_section(tmp_path):
    # Limits are for a GPU; here nothing hangs, and a core may be taken.
    result, lines = start(tmp_path, "--factor", 20)
    assert result.returncode == 0, (result.stdout, result.stderr)
    assert list(lines) == list(SECTIONS)
    assert {name for name, line in lines.items() if line["status"] != "ok"} == {"sanitizer"}, lines
    assert lines["loop"]["result"]["equal"] == lines["loop"]["result"]["pictures"] == 20
    assert len(lines["kernels"]["result"]["microseconds"]) > 20
    assert lines["ort-1b-2"]["result"]["steps"]["all"]["ms"] > 0 and "eager" in lines["torch-1b-2"]["result"]["results"]
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["ok"], summary["skipped"], summary["failed"], summary["hung"]) == (len(SECTIONS) - 1, 1, 0, 0)


def test_one_that_fails_and_one_that_hangs(tmp_path):
    result, lines = start(tmp_path, "machine", "fails", "hangs", "ceilings")
    assert result.returncode == 1
    assert {name: line["status"] for name, line in lines.items()} == {
        "machine": "ok", "fails": "failed", "hangs": "hung", "ceilings": "ok",
    }  # fmt: skip
    assert lines["fails"]["reason"] == "JanusError: this section always fails" and lines["hangs"]["reason"] == "not done after 6 s"
    assert "Traceback" in (tmp_path / "fails.log").read_text()
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["ok"], summary["failed"], summary["hung"]) == (2, 1, 1)


def test_a_process_that_dies_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(first, "_python", lambda name, place: [sys.executable, "-c", "import os; print('bad luck'); os.abort()"])
    place = Place(True, tmp_path, tmp_path, tmp_path)
    (line,) = first.run_all(["machine"], place, tmp_path / "out", 1.0)
    assert line["status"] == "failed" and line["reason"].startswith("exit code -6: ")


def test_limits_fit_three_calls():
    """A command on such a machine ends after ten minutes, all of them after fifteen; what usually runs takes a third of its limit."""
    limits = {name: section.limit_s for name, section in SECTIONS.items()}
    assert max(limits.values()) <= 300 and sum(limits.values()) / 3 <= 600


def test_list_and_unknown_sections():
    listed = CliRunner().invoke(first.main, ["--list"])
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(SECTIONS)
    unknown = CliRunner().invoke(first.main, ["1b-4"])
    assert unknown.exit_code == 2 and "no section called 1b-4; expected some of machine, ceilings" in unknown.stderr


def test_the_ids_that_travel_are_the_cpus():
    expected = json.loads((ROOT / "bench" / "gpu" / "nano_ids.json").read_text())
    with janus_runtime.load(NANO, "cpu") as janus:
        for prompt, pictures in expected.items():
            assert [picture.image_ids.tolist() for picture in janus.generate(prompt, len(pictures))] == pictures


@pytest.mark.parametrize("set_is_there", [False, True])
def test_a_section_runs_in_the_environment_of_its_set(tmp_path, set_is_there):
    place = Place(False, tmp_path, tmp_path, tmp_path)
    if set_is_there:
        (tmp_path / "ort").mkdir()
        (tmp_path / "ort" / "env.sh").write_text(f"export FROM_SET=yes PATH={tmp_path}/ort:$PATH\n")
        # A set may bring a Python of its own, as that of TensorRT 8.6 does.
        own = tmp_path / "ort" / "python3"
        own.write_text(f'#!/bin/sh\nOWN=yes exec "{sys.executable}" "$@"\n')
        own.chmod(0o755)
    code = "import os; print(os.environ.get('FROM_SET'), os.environ.get('OWN'))"
    said = subprocess.run([*first._python("ort-nano", place), "-c", code], capture_output=True, text=True).stdout
    assert said.split() == (["yes", "yes"] if set_is_there else ["None", "None"])


def test_a_bundle_whose_weights_were_not_finished_is_made_again(tmp_path, monkeypatch):
    """A section that fills one may reach its limit."""
    source = shutil.copytree(NANO, tmp_path / "packed" / "nano-fp16")
    (source / "seeded.json").touch()
    bundle = Place(False, tmp_path / "packed", tmp_path, tmp_path / "work").bundle
    monkeypatch.setattr(place_module, "run_module", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        bundle("nano-fp16")
    filled = []
    monkeypatch.setattr(place_module, "run_module", lambda *arguments: filled.append(arguments))
    assert bundle("nano-fp16") == bundle("nano-fp16") == tmp_path / "work" / "nano-fp16" and len(filled) == 1
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["nano-fp16"]
    with pytest.raises(Skipped, match="1b-fp16 was not carried here"):
        bundle("1b-fp16")
