"""What docs/gpu.md says of messages, names and files is so."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")


def test_messages_are_the_runtimes():
    source = "\n".join(path.read_text() for path in (ROOT / "janus_runtime").rglob("*.py"))
    table = DOCS.split("## When it does not work")[1].split("\n## ")[0]
    messages = [message for row in re.findall(r"^\| (.*?) \|", table, re.M)[2:] for message in re.findall(r"`(.+?)`", row)]
    assert len(messages) >= 8
    pieces = [piece.strip(" ()") for message in messages for piece in message.split("…")]
    assert [piece for piece in pieces if piece not in re.sub(r"\{[^}]*\}", "", source)] == []


def test_backends_and_flavours_are_all_there():
    from janus_runtime.backends import _BACKENDS
    from janus_runtime.decoding.kv_cache import CACHES

    assert [name for name in (*_BACKENDS, *CACHES) if f"`{name}`" not in DOCS] == []


def test_the_image_gets_what_pip_needs():
    kept = re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text(), re.M)
    assert all((ROOT / name).exists() for name in kept)
    # All that pyproject.toml installs or reads.
    assert {"pyproject.toml", "README.md", "LICENSE", "janus_export", "janus_runtime", "engines/janus-nano"} <= set(kept)
