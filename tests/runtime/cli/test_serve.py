"""Options of janus-rt serve, and what it says where it cannot start. That it serves: tests/runtime/serve."""

import subprocess
import sys

import click
import pytest

from janus_runtime.cli import main
from janus_runtime.console.commands import ByteSize
from janus_runtime.packages import install_hint


@pytest.mark.parametrize(("text", "size"), [("4G", 4 << 30), ("512m", 512 << 20), ("3KB", 3072), ("65536", 65536)])
def test_sizes(text, size):
    assert ByteSize(1).convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "4T", "1.5G", "1" * 20, "0"])
def test_what_is_no_size(text):
    with pytest.raises(click.BadParameter):
        ByteSize(1).convert(text, None, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "70000"], "70000"),
        (["--cors-origin", "chat.example.com"], "https://chat.example.com"),
        (["--cors-origin", "*"], "origin"),
        (["--timeout", "0"], "--timeout"),
        (["--memory", "lots"], "4G"),
        (["--api-key-file", "/no/such/file"], "does not exist"),
        (["--log-format", "xml"], "'text', 'json'"),
    ],
)
def test_wrong_options(run, options, said):
    result = run(main, "serve", *options)
    assert result.exit_code == 2 and said in result.stderr


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "is empty"), (b"two words", "characters"), (b"\xff\xfe", "characters"), (b"a\nb", "characters")]
)
def test_keys_that_no_header_can_carry(tmp_path, content, said):
    from janus_runtime.errors import JanusError
    from janus_runtime.serve.key import read_key

    (tmp_path / "key").write_bytes(content)
    with pytest.raises(JanusError, match=said):
        read_key(tmp_path / "key")


def test_without_its_packages_it_says_what_to_install():
    code = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("fastapi", "uvicorn", "starlette", "pydantic", "prometheus_client", "multipart", "h11"):
            raise ModuleNotFoundError(f"{name} is not here", name=name)
sys.meta_path.insert(0, Forbid())
from janus_runtime.cli import main
main(["serve"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert "the server needs packages" in result.stderr and install_hint("serve") in result.stderr
