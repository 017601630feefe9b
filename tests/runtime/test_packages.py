"""What an extra stands for, what is missing of it, and commands that install it."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import numpy
import PIL
import pytest
import tokenizers

from janus_runtime import packages
from janus_runtime.errors import BackendError
from janus_runtime.packages import importing, install_hint

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = metadata.metadata("janus-rt").get_all("Provides-Extra")


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_has_a_command_that_names_its_packages(extra):
    command = install_hint(extra)
    assert command.startswith("pip install ") and "janus" not in command and ";" not in command


def test_markers_are_of_the_form_that_is_understood():
    """Comparisons with `and` between them: nothing is left once they are taken out."""
    for requirement in metadata.requires("janus-rt"):
        rest = packages._COMPARISON.sub("", requirement.partition(";")[2])
        assert re.fullmatch(r"( |and|\(|\))*", rest), requirement


@pytest.mark.parametrize(
    ("version", "platform", "machine", "extra", "expected"),
    [
        ((3, 10), "linux", "x86_64", "cpu", "pip install 'onnxruntime>=1.23.2'"),
        ((3, 11), "linux", "x86_64", "cpu", "pip install 'onnxruntime>=1.31'"),
        ((3, 13), "darwin", "arm64", "trt-test", "pip install polygraphy==0.53.6"),
    ],
)
def test_markers_are_evaluated(monkeypatch, version, platform, machine, extra, expected):
    monkeypatch.setattr(packages.sys, "version_info", type("Version", (), {"major": version[0], "minor": version[1]}))
    monkeypatch.setattr(packages.sys, "platform", platform)
    monkeypatch.setattr(packages.platform, "machine", lambda: machine)
    assert install_hint(extra) == expected


def test_pins_reach_the_shell_whole():
    command = install_hint("export")
    assert "torch==" in command and "'ml-dtypes>=" in command and install_hint("gpu").count("'") == 4


def test_a_checkout_that_is_not_installed_is_installed_by_its_path(monkeypatch):
    monkeypatch.setattr(packages, "_DISTRIBUTION", "no-such-distribution")
    assert install_hint("export") == f"pip install '{ROOT}[export]'"


def test_a_missing_package_is_named():
    with pytest.raises(BackendError, match=r"the cook needs packages that are not installed: no_such_module; run pip install "):
        with importing("cpu", "the cook"):  # whose own packages are here wherever tests run
            import no_such_module  # noqa: F401


def test_a_broken_package_keeps_its_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("raise OSError('libbroken.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        BackendError,
        match=r"cannot import a package that is installed \(OSError: libbroken.so: cannot open .*\); .* pip install --force-reinstall ",
    ):
        with importing("export", "the cook"):
            import broken_library  # noqa: F401


@pytest.fixture
def bare(tmp_path):
    """`bare(*arguments)` runs Python where only the runtime's core packages can be found, as after a plain install."""
    core = tmp_path / "core"
    core.mkdir()
    for module in (numpy, PIL, tokenizers, click):
        source = Path(module.__file__).parent
        for path in (source, *source.parent.glob(f"{source.name.lower()}.libs"), *source.parent.glob(f"{source.name.lower()}-*.dist-info")):
            (core / path.name).symlink_to(path)
    installed = metadata.distribution("janus-rt")._path
    (core / installed.name).symlink_to(installed)

    code = tmp_path / "code"
    program = f"import sys; sys.path[:0] = {[str(core), str(code)]}; from janus_export.cli import main; main()"

    def run(*arguments):
        return subprocess.run([sys.executable, "-S", "-E", "-c", program, *arguments], capture_output=True, text=True, cwd=tmp_path)

    code.mkdir()
    for name in ("janus_runtime", "janus_export"):
        (code / name).symlink_to(ROOT / name)
    return run


@pytest.mark.parametrize("verb", ["checkpoint", "inspect"])
def test_the_exporter_without_its_packages_names_all_of_them(bare, verb, tmp_path):
    out = ["--out", os.fspath(tmp_path / "out")] if verb == "checkpoint" else []
    result = bare(verb, os.fspath(ROOT / "nano" / "janus-nano"), *out)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    for name in ("torch", "onnx", "onnx-ir", "onnxscript", "ml-dtypes", "huggingface-hub"):
        assert name in result.stderr.split("; run ")[0]
    assert result.stderr.strip().endswith(install_hint("export"))


def test_no_text_asks_for_a_package_that_no_index_has():
    folders = ("janus_runtime", "janus_export", "tests", "docs", "bench", "nano")
    files = [*ROOT.glob("*.md"), *(path for name in folders for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".md", ".sh"))]
    name = re.compile(r"janus-rt" + r"\\*\[")
    assert [path for path in files if name.search(path.read_text(encoding="utf-8"))] == []
