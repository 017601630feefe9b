import io
import json
import sys

import pytest

from janus_runtime.console.output import print_json, printable, say, set_up_streams


class Screen(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.fixture
def stdout(monkeypatch):
    """`stdout(encoding, terminal)` -> function that gives the bytes written since."""

    def set_up(encoding="utf-8", terminal=False):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", (Screen if terminal else io.TextIOWrapper)(raw, encoding=encoding, errors="strict"))
        set_up_streams()
        return raw.getvalue

    return set_up


@pytest.mark.parametrize(
    ("encoding", "text", "expected"),
    [
        ("utf-8", "ein Kreis 红", "ein Kreis 红".encode()),
        ("latin-1", "größer 红", b"gr\xf6\xdfer \\u7ea2"),
        ("ascii", "größer 🦊", b"gr\\xf6\\xdfer \\U0001f98a"),
        ("utf-8", "b\udcff/o", b"b\xff/o"),  # a file name is what it is on the disk
        ("latin-1", "b\udcff/o", b"b\xff/o"),
        ("ascii", "b\udcff红\ud800", b"b\xff\\u7ea2\\ud800"),
        ("utf-8", "red \x1b[31m\r\a", b"red \x1b[31m\r\a"),  # a pipe gets what was said
    ],
)
def test_every_text_can_be_written(stdout, encoding, text, expected):
    written = stdout(encoding)
    say(text)
    assert written() == expected + b"\n"


def test_a_terminal_gets_no_control_characters(stdout):
    written = stdout(terminal=True)
    say("a\tb\nred \x1b[31m \x1b]0;title\a \x9b1m back\rover \x7f b\udcff ü红", end="")
    assert written().decode() == "a\tb\nred \\x1b[31m \\x1b]0;title\\x07 \\x9b1m back\\x0dover \\x7f b\\xff ü红"


def test_printable_keeps_text():
    assert printable("Größe\t红🦊\u200d\n") == "Größe\t红🦊\u200d\n"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252", "shift_jis"])
@pytest.mark.parametrize("text", ["红 größer", "b\udcff/o", "\ud800", "\x1b[31m\x9b\x7f", "plain"])
def test_json_is_json_in_every_encoding(stdout, encoding, terminal, text):
    written = stdout(encoding, terminal)
    print_json({"file": text})
    line = written().decode(encoding)
    assert json.loads(line) == {"file": text} and line.count("\n") == 1
    assert printable(line) == line or not terminal


def test_json_stays_readable_where_it_can(stdout):
    written = stdout("latin-1")
    print_json({"prompt": "größer"})
    assert written() == '{"prompt": "größer"}\n'.encode("latin-1")
