"""The runtime runs where torch, transformers and onnx cannot be imported at all."""

import subprocess
import sys

import pytest
from PIL import Image

from janus_runtime.packages import install_hint

FORBID = """
import sys
class Forbid:
    names = {"torch", "transformers", "onnx", "onnx_ir", "onnxscript", "ml_dtypes", "safetensors", "huggingface_hub", "janus_export"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} must not be imported", name=name)
sys.meta_path.insert(0, Forbid())
"""


def python(code, *arguments):
    result = subprocess.run([sys.executable, "-c", FORBID + code, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_generate_and_describe_without_torch(tiny, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    code = """
import janus_runtime
with janus_runtime.load(sys.argv[1], backend="cpu") as janus:
    (picture,) = janus.generate("a red fox", seed=7)
    print(picture.image.size, len(picture.image_ids))
    print(len(list(janus.describe(sys.argv[2], "What is this?", max_tokens=5))) > 0)
"""
    assert python(code, tiny, tmp_path / "red.png").splitlines() == ["(64, 64) 16", "True"]


def test_the_command_line_without_torch(tiny, tmp_path):
    code = f"from janus_runtime.cli import main\nmain(['generate', 'a fox', '-n', '1', '--bundle', r'{tiny}', '--out', r'{tmp_path}'])"
    assert python(code).strip().endswith("000-a-fox-seed0.png")


@pytest.mark.parametrize("module", ["janus_runtime", "janus_runtime.cli"])
def test_importing_is_light(module):
    heavy = ("numpy", "PIL", "tokenizers", "onnxruntime")
    loaded = python(f"import {module}\nprint([name for name in {heavy} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_help_is_light():
    loaded = python("""
from click.testing import CliRunner
from janus_runtime.cli import main
for command in ("generate", "describe", "chat", "info", "verify", "serve", "ui"):
    assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
print(any(name in sys.modules for name in ("numpy", "fastapi", "uvicorn", "pydantic")))
""")
    assert loaded.strip() == "False"


def test_a_missing_onnxruntime_says_what_to_install(tiny):
    code = """
Forbid.names.add("onnxruntime")
from janus_runtime.cli import main
main(["info", "--bundle", sys.argv.pop(1)])
"""
    result = subprocess.run([sys.executable, "-c", FORBID + code, str(tiny)], capture_output=True, text=True)
    assert result.returncode == 1
    assert install_hint("cpu") in result.stderr and "Traceback" not in result.stderr
