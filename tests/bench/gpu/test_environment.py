"""What runs beside TensorRT 8.6 needs nothing that its environment does not have."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from janus_runtime.bundle.bundle import NANO

ROOT = Path(__file__).resolve().parents[3]
ABSENT = ("torch", "onnx", "onnx_ir", "onnxscript", "ml_dtypes", "onnxruntime", "transformers", "pytest", "hypothesis", "huggingface_hub")


@pytest.mark.parametrize(
    "module",
    ["bench.gpu.plans", "bench.gpu.parity", "bench.gpu.latency", "bench.gpu.first", "janus_export.cli", "janus_export.tensorrt.plans"],
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
