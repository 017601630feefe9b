"""Every process of ours turns ONNX Runtime's telemetry off before it imports it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import importlib, os, sys
seen = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            seen.append(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
import onnxruntime
print(seen[-1])  # what comes before are libraries that only look whether it is installed
"""


@pytest.mark.parametrize("module", ["bench.cpu.flow_speed", "nano.__main__", "janus_export.cli", "janus_runtime.backends.ort_cpu"])
@pytest.mark.parametrize(("stated", "expected"), [(None, "1"), ("0", "0")])
def test_it_is_off_unless_the_user_turns_it_on(module, stated, expected):
    # With CI set it reports nothing, whether it is on or off.
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | {"CI": "true"}
    if stated is not None:
        environment["ORT_DISABLE_TELEMETRY"] = stated
    result = subprocess.run([sys.executable, "-c", CODE, module], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == expected, result.stderr
