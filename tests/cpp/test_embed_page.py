"""docs/embed.md: its program compiles and does what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_runtime.bundle.bundle import NANO

PAGE = (Path(__file__).parents[2] / "docs" / "embed.md").read_text(encoding="utf-8")
HEADER = Path(__file__).parents[2] / "cpp" / "include"


@pytest.fixture(scope="module")
def program(build, tmp_path_factory):
    """The page's program by the page's lines of CMake."""
    (source,), (lines,) = (re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) for language in ("cpp", "cmake"))
    assert len(source.splitlines()) <= 40
    folder = tmp_path_factory.mktemp("program")
    subprocess.run(["cmake", "--install", build, "--prefix", folder / "prefix"], check=True, capture_output=True)
    (folder / "service.cpp").write_text(source)
    head = "cmake_minimum_required(VERSION 3.22)\nproject(service LANGUAGES CXX)\nset(CMAKE_CXX_STANDARD 17)\n"
    (folder / "CMakeLists.txt").write_text(f"{head}add_executable(service service.cpp)\n{lines}")
    subprocess.run(
        ["cmake", "-G", "Ninja", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}"],
        check=True,
        capture_output=True,
    )
    subprocess.run(["cmake", "--build", folder / "build"], check=True, capture_output=True)
    return folder / "build" / "service"


def test_the_program(program, nano, onnxruntime_library, tmp_path):
    _, janus = nano
    environment = {**os.environ, "JANUS_ONNXRUNTIME": str(onnxruntime_library)}
    result = subprocess.run([program, NANO, "a red circle"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["picture-7.png: red", "picture-8.png: red"]
    for picture in janus.generate("a red circle", n=2, seed=7):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"picture-{picture.seed}.png")), np.asarray(picture.image))
    refused = subprocess.run([program, NANO, " "], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr == "prompt: the prompt is empty; expected some text\n"


def test_every_status_is_in_the_table():
    names = re.findall(r"\bJANUS_\w+(?= = \d+[,\s])", (HEADER / "janus" / "janus.h").read_text())
    statuses = [name for name in names if not name.startswith(("JANUS_STOP", "JANUS_SOLVER")) and name != "JANUS_OK"]
    assert len(statuses) == 10 and all(f"| `{name}` |" in PAGE for name in statuses)


def test_the_command_that_finds_the_wheels_library(onnxruntime_library):
    (line,) = re.findall(r"^JANUS_ONNXRUNTIME=\$\((.*)\) && export JANUS_ONNXRUNTIME$", PAGE, re.M)
    found = subprocess.run(
        ["bash", "-c", line.replace("python3", sys.executable)], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert Path(found) == onnxruntime_library
