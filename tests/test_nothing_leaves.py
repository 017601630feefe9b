"""Nothing leaves the machine: no command writes outside its output folder or looks up a host, and none needs a HOME for that."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from janus_runtime.bundle.bundle import NANO

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "nano" / "janus-nano"
FOLDERS = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR")

# Ends the process at the first look at a network. Only Python's own calls are seen here.
NO_NETWORK = """
import os, sys

def end(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect", "socket.sendto"):
        os.write(2, f"{event} {arguments}".encode())
        os._exit(97)

sys.addaudithook(end)
"""

COMMANDS = {
    "generate": ("janus_runtime.cli", "generate", "a red circle", "-n", "1", "--out", "{out}", "--quiet"),
    "describe": ("janus_runtime.cli", "describe", "{picture}", "--quiet"),
    "info": ("janus_runtime.cli", "info", "--quiet"),
    "inspect": ("janus_export.cli", "inspect", CHECKPOINT),
    "checkpoint": (
        "janus_export.cli", "checkpoint", CHECKPOINT, "--out", "{out}/bundle", "--precision", "int8", "--only", "understanding", "--quiet",
    ),
}  # fmt: skip


def unshare():
    """A prefix that leaves a process without any network, where the system allows it."""
    command = [shutil.which("unshare") or "unshare", "--map-root-user", "--net"]
    try:
        return command if subprocess.run([*command, "true"], capture_output=True).returncode == 0 else None
    except OSError:
        return None


def files(*folders):
    """Python's own bytecode apart: processes beside this one may write it."""
    return {path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture
def run_command(tmp_path):
    """`run_command(name, prefix, **environment)` -> its result, in an environment of nothing but PATH and empty folders."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    for name in FOLDERS:
        (tmp_path / name).mkdir()

    def run(name, prefix=(), **environment):
        module, *arguments = COMMANDS[name]
        if module == "janus_export.cli":
            pytest.importorskip("torch", reason="torch is not installed, which the exporter needs")
        out = tmp_path / "out"
        arguments = [str(each).format(out=out, picture=tmp_path / "red.png") for each in arguments]
        environment = {
            "PATH": os.environ["PATH"],
            # The tree, too: the working folder is another.
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            **{each: str(tmp_path / each) for each in FOLDERS},
            **environment,
        }
        command = [*prefix, sys.executable, "-m", module, *arguments]
        result = subprocess.run(command, cwd=tmp_path / "site", env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_written_but_what_was_asked_for(run_command, tmp_path, name):
    ours = (ROOT / "janus_runtime", ROOT / "janus_export", NANO, CHECKPOINT)
    before = files(*ours)
    result = run_command(name)
    assert result.stderr == ""
    assert sorted(path.relative_to(tmp_path) for folder in FOLDERS for path in (tmp_path / folder).rglob("*")) == []
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["sitecustomize.py"]
    assert files(*ours) == before


@pytest.mark.parametrize("name", [name if name != "checkpoint" else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS])
def test_no_home_to_write_to(run_command, tmp_path, name):
    """A path below a file: not even root can make a folder there."""
    (tmp_path / "file").touch()
    nowhere = {each: str(tmp_path / "file" / each) for each in FOLDERS if each != "TMPDIR"}
    assert run_command(name, **nowhere).stderr == ""


@pytest.mark.parametrize("name", [name if name != "checkpoint" else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS])
def test_no_network(run_command, name):
    """Native code, too, has none to reach, and says nothing about it."""
    prefix = unshare()
    if prefix is None:
        pytest.skip("unshare --net is not allowed here: run as root, or with user namespaces")
    assert run_command(name, prefix).stderr == ""


def test_a_look_at_the_network_would_be_seen(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    code = "import socket; socket.getaddrinfo('localhost', 80)"
    result = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode == 97 and result.stderr.startswith("socket.getaddrinfo")
