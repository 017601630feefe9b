"""The steps for a GPU machine run here as they would there, at tiny sizes, over stand-ins of its devices."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from janus_runtime.bundle.bundle import NANO

ROOT = Path(__file__).resolve().parents[3]
CHECK = ROOT / "bench" / "gpu" / "check.sh"
NANO_STEPS = ["nano-build", "nano-verify", "nano-logits", "nano-quality"]
# What the environment of TensorRT 8.6 does not have.
ABSENT = ("torch", "onnx", "onnx_ir", "onnxscript", "ml_dtypes", "onnxruntime", "transformers", "pytest", "hypothesis", "huggingface_hub")


@pytest.fixture
def place(tmp_path):
    """What the script gets from its environment."""
    packed = tmp_path / "packed"
    packed.mkdir()
    return {
        **os.environ,
        "GPU_CHECK_DRY": "1",
        "GPU_CHECK_STATE": str(tmp_path / "state"),
        "GPU_CHECK_PACKED": str(packed),
        "OUT": str(tmp_path / "out"),
        "PYTHON": sys.executable,
    }


def check(place, *steps):
    return subprocess.run(["bash", CHECK, *steps], env=place, capture_output=True, text=True)


def report(place, name):
    return json.loads((Path(place["GPU_CHECK_STATE"]) / "results" / f"{name}.json").read_text())


def test_list(place):
    result = check(place, "list")
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines][:6] == ["machine", *NANO_STEPS, "1b-fill"]
    # A command on such a machine ends after 10 minutes.
    assert all(0 < int(line[1]) <= 540 and len(line) == 3 for line in lines)


def test_every_step_listed_is_there(place):
    script = CHECK.read_text()
    for line in check(place, "list").stdout.splitlines():
        assert f"\n{line.split()[0]}() {{" in script, line


def test_an_unknown_step(place):
    result = check(place, "8b-build")
    assert result.returncode == 2 and "got step 8b-build, expected one of: machine nano-build" in result.stderr


@pytest.mark.slow
def test_nano(place):
    """Every step of janus-nano's; what the steps call is tested in test_latency.py, the script in the tests below."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (pip install '.[trt-test]')")
    shutil.copytree(NANO, Path(place["GPU_CHECK_PACKED"]) / "nano-fp16")
    result = check(place, *NANO_STEPS)
    assert result.returncode == 0, result.stdout
    assert [line for line in result.stdout.splitlines() if line.startswith("== ") and ": ok after" not in line] == []
    plans = report(place, "plans-nano-fp16")
    assert plans["rows"] == [2, 16] and plans["results"]["language_model.slice"]["bytes"] > 1_000_000
    for name in ("verify-nano-fp32-tensorrt", "verify-nano-fp16-cuda"):
        assert {row["passed"] for row in report(place, name)["results"].values()} == {True}
    logits = report(place, "logits-nano-fp32-tensorrt")
    assert logits["passed"] and logits["steps"] == 64 and logits["drawn"] == "the same ids"
    assert {row["failed"] for row in report(place, "quality-nano-cuda")["losses"].values()} == {False}
    with tarfile.open(Path(place["OUT"]) / "gpu_check.tar.gz") as archive:
        assert {"results/logits-nano-fp16-cuda.json", "logs/nano-quality.log"} <= set(archive.getnames())
    assert [line.split()[0] for line in check(place, "list").stdout.splitlines() if line.endswith("done")] == NANO_STEPS


def test_benchmarks(place):
    shutil.copytree(NANO, Path(place["GPU_CHECK_STATE"]) / "bundles" / "1b-fp16")
    result = check(place, "1b-bench-2", "1b-rivals-2", "1b-verify")
    assert result.returncode == 0, result.stdout
    assert {"early", "middle", "late", "all"} <= set(report(place, "gpu-1b-2-tensorrt")["steps"])
    assert report(place, "gpu-1b-2-cuda")["rows"] == 2
    assert set(report(place, "gpu-1b-2-rivals")["results"]) == {"eager", "compiled"}


def test_a_step_that_fails_is_tried_again(place):
    done = Path(place["GPU_CHECK_STATE"]) / "done"
    done.mkdir(parents=True)
    (done / "1b-fill").touch()
    result = check(place, "1b-fill")  # nothing was packed
    assert result.returncode == 1 and "== 1b-fill: FAILED" in result.stdout and "cannot stat" in result.stdout
    assert not (done / "1b-fill").exists()
    assert (Path(place["OUT"]) / "gpu_check.tar.gz").is_file()


def test_steps_that_are_done_are_skipped_and_time_is_kept(place):
    done = Path(place["GPU_CHECK_STATE"]) / "done"
    done.mkdir(parents=True)
    for line in check(place, "list").stdout.splitlines():
        if line.split()[0] not in ("1b-fill", "1b-build-2"):
            (done / line.split()[0]).touch()
    result = check({**place, "GPU_CHECK_SECONDS": "130"})
    assert result.returncode == 1
    heads = [line.split(":")[0] for line in result.stdout.splitlines() if line.startswith("== ")]
    assert heads[0] == "== 1b-fill" and heads[1].startswith("== next is 1b-build-2, for which 1") and len(heads) == 2


def test_pack_says_what_to_carry(place, tmp_path):
    for name in ("trt86.00", "trt86.01", "ort.00"):
        (tmp_path / name).mkdir()
        for file in ("part", "unpack.sh"):
            (tmp_path / name / file).touch()
    for name in ("nano-fp16", "1b-fp16", "1b-fp32", "7b-fp16"):
        (tmp_path / "packed" / name).mkdir()
    parts = [str(tmp_path / name) for name in ("trt86.00", "trt86.01", "ort.00")]
    pack = [ROOT / "bench" / "gpu" / "pack.sh", str(tmp_path / "packed")]
    result = subprocess.run(["bash", *pack, *parts], env=place, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"{parts[1]}: bash {parts[1]}/unpack.sh {parts[1]}/part" in result.stdout
    assert f"{parts[0]}, after the last of trt86: bash {parts[0]}/unpack.sh done trt86" in result.stdout
    result = subprocess.run(["bash", *pack, str(tmp_path)], env=place, capture_output=True, text=True)
    assert result.returncode == 2 and "is no part of a set" in result.stderr


@pytest.mark.parametrize(
    "module", ["bench.gpu.plans", "bench.gpu.parity", "bench.gpu.latency", "janus_export.cli", "janus_export.tensorrt.plans"]
)
def test_what_runs_beside_tensorrt_needs_nothing_else(module):
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r})); import {module}"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_plain_plans_are_built_without_onnx(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (pip install '.[trt-test]')")
    shutil.copytree(NANO, tmp_path / "nano")
    arguments = ["--library", "tensorrt_rtx", "--compute-capability", "8.9", "--level", "0", "--lengths", "320", "--flavour", "slice"]
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r})); from bench.gpu.plans import main; main()"
    command = [sys.executable, "-c", code, tmp_path / "nano", *arguments, "--out", tmp_path / "plans.json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
