"""The house: which file imports which, and how deep a step lies."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def imports(package: str) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, anywhere in it: at run time, when called, or for types."""
    paths = {path.with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path for path in Path(package).rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                base = parents[: len(parents) - node.level + 1] if node.level else []
                source = ".".join([*base, *([node.module] if node.module else [])])
                found[module] |= {f"{source}.{name.name}" if f"{source}.{name.name}" in paths else source for name in node.names}
            elif isinstance(node, ast.Import):
                found[module] |= {name.name for name in node.names}
        found[module] &= paths.keys() - {module}
    return found


@pytest.mark.parametrize("package", ["janus_runtime", "janus_export"])
def test_no_two_files_import_each_other(monkeypatch, package):
    """By any way around."""
    monkeypatch.chdir(ROOT)
    left = imports(package)
    assert len(left) > 20 and any(left.values())
    while leaves := [module for module, used in left.items() if not used & left.keys()]:
        for module in leaves:
            del left[module]
    # What is left lies on a circle, or on the way to one.
    assert left == {}


def test_a_cpu_loads_no_module_of_devices():
    code = """
import sys, janus_runtime
with janus_runtime.load(backend="cpu") as janus:
    janus.generate("a red circle")
print([name for name in sys.modules if name.startswith("janus_runtime") and ("device" in name or "cuda" in name or "kv_cache" in name)])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_step_lies_eight_calls_below_its_thread(tmp_path):
    """From the scheduler's loop to the engine, which CONTRIBUTING names."""
    code = """
import sys, traceback
from janus_runtime.backends.ort_cpu import OrtBinding
from janus_runtime.cli import main
run, calls = OrtBinding.run, []
def look(binding, inputs, stop=None):
    if "seqlens_k" in inputs and inputs["embeds"].shape[1] == 1:
        calls[:] = [frame.name for frame in traceback.extract_stack()[:-1] if "janus_runtime" in frame.filename]
    return run(binding, inputs, stop)
OrtBinding.run = look
try:
    main(sys.argv[1:])
finally:
    print(*calls[calls.index("_run") + 1 :], "run")
"""
    command = [sys.executable, "-c", code, "generate", "a red circle", "-n", "1", "--quiet", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    calls = done.stdout.splitlines()[-1].split()
    assert calls == ["_step", "advance", "_step", "_draw", "draw", "step", "_step", "run"]
