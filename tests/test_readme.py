"""README's commands run as written, with local stand-ins for hub ids, bundles and photos; its numbers are those on file."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bench import table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


COMMANDS = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]

EXPORTS = [line for line in COMMANDS if line.startswith("make export")]


@pytest.fixture(scope="module")
def workplace(tiny, bundles, tmp_path_factory):
    """A folder in which README's names exist: the bundles, the photo."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(tiny, folder / "engines" / "janus-pro-1b")
    shutil.copytree(bundles("tiny-flow"), folder / "engines" / "nano-flow")
    Image.new("RGB", (60, 40), "red").save(folder / "photo.jpg")
    return folder


def run(command, cwd):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("make")])
def test_command(line, workplace, checkpoints):
    program, *arguments = shlex.split(line.replace("deepseek-ai/Janus-Pro-1B", str(checkpoints("tiny", "original", "bin"))))
    assert program.startswith(".venv/bin/")
    result = run([str(BIN / Path(program).name), *arguments], workplace)
    if "tensorrt" in arguments and result.returncode:  # no GPU
        assert "pip install 'janus-rt[trt]'" in result.stderr and len(result.stderr.splitlines()) == 1
        return
    assert result.returncode == 0, result.stderr


def make(*arguments, cwd=ROOT):
    """make, with the environment that runs the tests instead of a new one."""
    environment = str(BIN.parent)
    return run(["make", "--no-print-directory", "-o", f"{environment}/.installed", f"VENV={environment}", *arguments], cwd)


def test_make_demo(tmp_path):
    """In a copy without checkpoints: pictures and the right answer about one of them."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    result = make("demo", cwd=copy)
    assert result.returncode == 0, result.stderr
    assert len(list((copy / "out").glob("*.png"))) == 15
    assert "12 pictures in" in result.stderr and "ms each" in result.stderr
    assert result.stdout.strip().splitlines()[-1].strip() == "a blue square"


def test_make_export(checkpoints, tmp_path):
    line, _ = EXPORTS
    source = str(checkpoints("tiny", "original", "bin"))
    line = line.replace("deepseek-ai/Janus-Pro-1B", source).replace("engines/janus-pro-1b", str(tmp_path / "out"))
    result = make(*shlex.split(line)[1:])
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["precision"] == "int4"
    result = make("export")
    assert result.returncode == 2 and "usage: make export MODEL=" in result.stderr


def test_make_export_of_nano_flow(tmp_path):
    _, line = EXPORTS
    result = make(*shlex.split(line)[1:], f"OUT={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["family"] == "janus-flow" and manifest["precision"] == "int8"
    result = make("export", "MODEL=nano/janus-nano", f"OUT={tmp_path / 'other'}", "VAE=nano/nano-flow/vae")
    assert result.returncode == 2 and "leave --vae out" in result.stderr


def test_make_setup_for_a_gpu():
    """Not carried out: TensorRT comes from its vendor's index."""
    (line,) = [line for line in COMMANDS if line.startswith("make setup")]
    plain, gpu = make("-n", "setup"), make("-n", *shlex.split(line)[1:])
    assert plain.stdout == "" or "nothing to be done" in plain.stdout.lower()
    assert "'.[gpu,trt,export,dev,trt-test]'" in gpu.stdout and "uninstall --quiet --yes onnxruntime" in gpu.stdout


def test_make_engines(tmp_path):
    (line,) = [line for line in COMMANDS if line.startswith("make engines")]
    result = make(*shlex.split(line.replace("engines/janus-pro-1b", str(tmp_path)))[1:])
    assert result.returncode == 2 and "is not a bundle" in result.stderr
    result = make("engines")
    assert result.returncode == 2 and "usage: make engines BUNDLE=" in result.stderr


def test_make_test_runs_the_tests():
    assert "test" in [line.split()[1] for line in COMMANDS if line.startswith("make")]
    assert "-m pytest" in make("-n", "test").stdout


def test_make_help_lists_every_verb():
    verbs = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text()).group(1).split()
    printed = make("help").stdout
    assert [verb for verb in verbs if verb not in printed] == []


def test_python_example(workplace):
    (code,) = blocks("python")
    result = run([sys.executable, "-c", code], workplace)
    assert result.returncode == 0, result.stderr
    assert (workplace / "fox.png").is_file() and result.stdout.strip()


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets and [target for target in targets if not (ROOT / target).exists()] == []


def test_numbers_are_those_on_file():
    assert table.replaced(README) == README


def test_options_in_the_table_exist():
    for program, command, options in re.findall(r"^\| `(janus-\w+) (\w+).*?` \| (.*) \|$", README, re.M):
        text = run([str(BIN / program), command, "--help"], ROOT).stdout
        for option in re.findall(r"`(--?[a-z-]+)", options):
            assert re.search(rf"(^|[\s,]){option}\b", text), (program, command, option)
