"""README's commands run as written, with local stand-ins for hub ids, bundles and photos; all documents' numbers are those on file."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from bench import table
from janus_export.cli import main as janus_export
from janus_runtime.packages import install_hint

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BIN = Path(sys.executable).parent


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


BLOCKS = [[line.split("#")[0].strip() for line in block.splitlines() if line.strip()] for block in blocks("sh")]
COMMANDS = [line for block in BLOCKS for line in block]


@pytest.fixture
def workplace(tiny, bundles, tmp_path):
    """A folder in which README's names exist: the photo, and bundles that another block makes."""
    shutil.copytree(tiny, tmp_path / "engines" / "janus-pro-1b")
    shutil.copytree(bundles("tiny-flow"), tmp_path / "engines" / "nano-flow")
    Image.new("RGB", (60, 40), "red").save(tmp_path / "photo.jpg")
    return tmp_path


def run(command, cwd):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def export(arguments, cwd):
    """janus-export in this process, where torch is warm and graphs are traced already."""
    before = os.getcwd()
    os.chdir(cwd)
    try:
        result = CliRunner().invoke(janus_export, arguments)
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def serves(command, cwd):
    """A command that goes on: whether it answers, and ends when it is told to."""
    pytest.importorskip("fastapi", reason="pip install '.[serve]'")
    # In place of a browser.
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True, env={**os.environ, "BROWSER": "true"}) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            with urllib.request.urlopen(f"{url}/ready") as answer:
                return answer.status == 200
        finally:
            process.terminate()
            assert process.wait(60) == 0


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if not all(line.startswith("make") for line in block)], ids=lambda block: block[-1]
)
def test_block(block, workplace, checkpoints):
    """The commands of a block in their order. Those of make, and of pip, have tests of their own."""
    bundle = workplace / "engines" / "janus-pro-1b"
    if exports := any(re.search("checkpoint .* --out engines/janus-pro-1b$", line) for line in block):
        shutil.rmtree(bundle)
    for line in block:
        if line.startswith("make") or "/pip " in line:
            continue
        program, *arguments = shlex.split(line.replace("deepseek-ai/Janus-Pro-1B", str(checkpoints("tiny", "original", "bin"))))
        if program == "python3":
            command = [sys.executable, *arguments, "--without-pip"]
        else:
            assert program.startswith(".venv/bin/")
            command = [str(BIN / Path(program).name), *arguments]
        if arguments and arguments[0] in ("serve", "ui"):
            assert serves([*command, "--json"], workplace), line
            continue
        in_here = program.endswith("janus-export") and arguments[0] == "checkpoint"
        result = export(arguments, workplace) if in_here else run(command, workplace)
        if "tensorrt" in arguments and result.returncode:  # no GPU
            assert install_hint("trt") in result.stderr and len(result.stderr.splitlines()) == 1
            continue
        assert result.returncode == 0, (line, result.stderr)
    if exports:
        assert json.loads((bundle / "manifest.json").read_text())["precision"] == "int4"


@pytest.mark.parametrize("line", [line for line in COMMANDS if "/pip " in line])
def test_install(line):
    """In a clone, pip finds this project and all the extras that are named. Nothing is installed."""
    program, *arguments = shlex.split(line)
    assert program == ".venv/bin/pip" and arguments[:1] == ["install"]
    result = run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--dry-run"], ROOT)
    assert result.returncode == 0, result.stderr
    assert "Would install janus-rt" in result.stdout and "does not provide the extra" not in result.stderr


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


def test_make_export(tmp_path):
    """The command that make runs is run here, in a process that is warm."""
    (line,) = [line for line in COMMANDS if line.startswith("make export")]
    printed = make("-n", *shlex.split(line)[1:], f"OUT={tmp_path / 'out'}").stdout
    (command,) = [shlex.split(each) for each in printed.splitlines() if "janus-export checkpoint" in each]
    assert Path(command[0]).is_file()
    result = export(command[1:], ROOT)
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["family"] == "janus-flow" and manifest["precision"] == "int8"
    result = make("export", "MODEL=nano/janus-nano", f"OUT={tmp_path / 'other'}", "VAE=nano/nano-flow/vae")
    assert result.returncode == 2 and "leave --vae out" in result.stderr
    result = make("export")
    assert result.returncode == 2 and "usage: make export MODEL=" in result.stderr


def test_make_setup_for_a_gpu():
    """Not carried out: TensorRT comes from its vendor's index."""
    (line,) = [line for line in COMMANDS if line.startswith("make setup")]
    plain, gpu = make("-n", "setup"), make("-n", *shlex.split(line)[1:])
    assert plain.stdout == "" or "nothing to be done" in plain.stdout.lower()
    assert "'.[gpu,trt,export,dev,trt-test,serve,ray]'" in gpu.stdout and "uninstall --quiet --yes onnxruntime" in gpu.stdout


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
    printed = [line.split()[0] for line in make("help").stdout.splitlines()]
    assert verbs and sorted(printed) == sorted(verbs)


@pytest.mark.parametrize("number, picture", [(0, "circle.png"), (1, "fox.png")])
def test_python_example(number, picture, workplace):
    result = run([sys.executable, "-c", blocks("python")[number]], workplace)
    assert result.returncode == 0, result.stderr
    assert (workplace / picture).is_file() and result.stdout.strip()


def test_every_python_example_is_run():
    assert len(blocks("python")) == 2


def anchors(path):
    """The names that a host of Markdown gives to a document's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
        assert not anchor or anchor in anchors(path.parent / target if target else path), (target, anchor)


@pytest.mark.parametrize("path", table.DOCUMENTS, ids=lambda path: path.name)
def test_numbers_are_those_on_file(path):
    text = path.read_text(encoding="utf-8")
    assert table.names(text) and table.replaced(text) == text


def test_every_table_stands_in_one_place():
    placed = [name for path in table.DOCUMENTS for name in table.names(path.read_text(encoding="utf-8"))]
    assert sorted(placed) == sorted(table.TABLES)


def test_options_in_the_table_exist():
    rows = re.findall(r"^\| `(janus-\w+) (\w+).*?` \| (.*) \|$", README, re.M)
    named = [(program, command, option) for program, command, options in rows for option in re.findall(r"`(--?[a-z-]+)", options)]
    assert len(named) > len(rows) > 0
    texts = {row[:2]: run([str(BIN / row[0]), row[1], "--help"], ROOT).stdout for row in rows}
    # The whole word: --top is no option because --top-k is one.
    assert [each for each in named if not re.search(rf"(^|[\s,]){each[2]}(?![\w-])", texts[each[:2]])] == []
