import os
import pty
import sys

import pytest

from janus_runtime.console.status import StatusLine, progress_bar
from testing.terminal import set_columns


@pytest.fixture
def screen(monkeypatch):
    """`screen(columns)` makes stderr a terminal, or resizes it; -> function that gives what was written since the last call."""
    master, slave = pty.openpty()
    stderr = os.fdopen(slave, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stderr)

    def resize(columns):
        monkeypatch.setattr(sys, "stderr", stderr)
        set_columns(slave, columns)
        return read

    def read():
        """A terminal hands on what was written in pieces of any size, so what we ask for ends with a mark."""
        stderr.write("\0")
        stderr.flush()
        data = b""
        while not data.endswith(b"\0"):
            data += os.read(master, 65536)
        return data[:-1].decode()

    yield resize
    stderr.close()
    os.close(master)


@pytest.mark.parametrize("columns", [200, 80, 58, 40, 20, 10, 3, 1])
def test_progress_fits_its_terminal(screen, columns):
    read = screen(columns)
    with StatusLine() as line:
        step = progress_bar(line, "drawing")
        for done in (1, 2, 300, 575, 576):
            step(done, 576)
            for part in read().split("\r"):
                assert len(part) < max(columns, 2) and "\n" not in part


@pytest.mark.parametrize(("columns", "bar"), [(80, f" [{'-' * 30}]"), (24, " [-------]"), (17, "")])
def test_the_bar_gives_way_first(screen, columns, bar):
    read = screen(columns)
    progress_bar(StatusLine(), "drawing")(1, 576)
    assert read() == f"\rdrawing{bar} 1/576"


def test_progress_follows_a_terminal_that_is_resized(screen):
    read = screen(80)
    line = StatusLine()
    line.show("x" * 100)
    assert len(read().lstrip("\r")) == 79
    read = screen(30)
    line.show("y" * 100)
    assert len(read().lstrip("\r")) == 29
    line.show("z")
    assert read().lstrip("\r").rstrip() == "z"


def test_wide_characters_take_two_columns(screen):
    read = screen(10)
    StatusLine().show("红" * 9)
    assert read() == "\r" + "红" * 4
    StatusLine().show("e\u0301" * 20)
    assert read() == "\r" + "e\u0301" * 9


def test_a_shorter_text_covers_a_longer_one(screen):
    read = screen(80)
    line = StatusLine()
    line.show("language_model 100%")
    line.show("text")
    assert read() == "\rlanguage_model 100%" + "\rtext" + " " * 15
    line.clear()
    assert read() == "\r\x1b[K"


def test_a_size_that_the_terminal_does_not_know_is_80(screen):
    read = screen(0)
    StatusLine().show("x" * 100)
    assert len(read()) == 80


def test_nothing_when_quiet(screen):
    screen(80)
    assert StatusLine().visible and not StatusLine(quiet=True).visible


def test_nothing_in_a_pipe(capsys):
    line = StatusLine()
    line.show("x")
    line.clear()
    assert not line.visible and capsys.readouterr().err == ""
