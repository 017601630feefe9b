"""What an export takes is measured in a process of its own, and nothing is left behind."""

import json
import subprocess
import sys
from pathlib import Path

import janus_export.cli
import janus_runtime.cli
from bench.cpu import export
from bench.cpu.export import main
from janus_runtime.bundle.bundle import NANO

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = {"janus-export": janus_export.cli.main, "janus-rt": janus_runtime.cli.main}


def test_time_and_memory_beside_a_copy(run, tmp_path, monkeypatch):
    """The commands are run in this process; how a process is measured is shown below."""

    def measure(command, *arguments):
        result = run(COMMANDS[command], *arguments)
        assert result.exit_code == 0, result.output
        return {"wall_s": 7.5, "peak_gb": 0.25, "timings_ms": {"step": 3.0}}

    monkeypatch.setattr(export, "measure", measure)
    out = tmp_path / "results" / "export.json"
    result = run(main, "--model", "tiny", "--precision", "int8", "--draw", "int8", "--work", tmp_path / "work", "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["model"] == "tiny" and "copy_s" in report
    measured = {"wall_s": 7.5, "peak_gb": 0.25, "timings_ms": {"step": 3.0}}
    assert 0 <= report["results"]["int8"].pop("bundle_gb") < 0.1
    assert report["results"] == {"int8": {**measured, "draw": measured}}
    assert "int8       7.5 s" in result.stdout and "7.5 s to a picture, 3 ms a step, peak memory 0.25 GB" in result.stdout
    assert list((tmp_path / "work").iterdir()) == []


def test_a_process_is_measured_by_itself(tmp_path):
    command = ("janus-rt", "generate", "a red circle", "-n", "1", "--bundle", str(NANO), "--json", "--quiet", "--out", str(tmp_path))
    # From a small process, as in use: on Linux the peak of a child begins at what its parent has when it is started.
    code = f"import json; from bench.cpu.commands import measure; print(json.dumps(measure(*{command!r})))"
    row = json.loads(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert row.keys() == {"wall_s", "cpu_s", "peak_gb", "timings_ms"} and {"load", "prefill", "step", "decode"} <= row["timings_ms"].keys()
    # The runtime with a model of 8 MB: tens of megabytes, and no torch.
    assert 0.03 < row["peak_gb"] < 0.6
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_a_picture_of_a_precision_that_is_not_exported(run, tmp_path):
    result = run(main, "--model", "tiny", "--precision", "int8", "--draw", "fp16", "--work", tmp_path / "work", "--out", tmp_path / "x")
    assert result.exit_code == 2 and "--draw fp16 needs --precision fp16" in result.output and not (tmp_path / "work").exists()
