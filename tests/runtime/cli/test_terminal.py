"""janus-rt on a terminal: width, Ctrl-C, editing, control characters. With janus-nano, which needs no export."""

import signal
import subprocess
import sys

import pytest
from PIL import Image

from testing.terminal import PATIENCE, Terminal

CHAT = ("-m", "janus_runtime.cli", "chat", "--temperature", 5, "--max-tokens", 512)

# A model that says what a test wants, as slowly as it wants.
SCRIPTED = """
import sys, time
from janus_runtime import chat
from janus_runtime.cli import main
from janus_runtime.decoding.engines import Engines
pieces, wait = {pieces!r}, {wait}
ask, following, encode = chat.Asker.answer, chat.Answer.__next__, Engines.encode_image
def scripted(self, *arguments):
    turn, answer = ask(self, *arguments)
    if pieces:
        answer._chunks = (piece for piece in pieces)
    return turn, answer
def slow(self):
    time.sleep(wait)
    return following(self)
def slow_encode(self, pixels):
    print("encoding", file=sys.stderr, flush=True)
    time.sleep(3 * wait)
    return encode(self, pixels)
chat.Asker.answer, chat.Answer.__next__, Engines.encode_image = scripted, slow, slow_encode
main(sys.argv[1:])
"""


def scripted(*arguments, pieces=(), wait=0.0, **settings):
    return Terminal("-c", SCRIPTED.format(pieces=list(pieces), wait=wait), *arguments, **settings)


@pytest.fixture
def red(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


@pytest.mark.parametrize("columns", [80, 40])
def test_progress_of_a_drawing_fits(tmp_path, columns):
    command = ("-m", "janus_runtime.cli", "generate", "a red circle", "-n", 1, "--out", tmp_path)
    with Terminal(*command, columns=columns) as terminal:
        assert terminal.wait() == 0
    updates = [part for part in terminal.output.decode().split("\r") if part.startswith("drawing ")]
    assert updates and max(map(len, updates)) < columns


def test_ctrl_c_ends_the_answer_not_the_chat():
    with scripted("chat", "--temperature", 5, "--max-tokens", 500, wait=0.05) as terminal:
        terminal.expect(rb"> ")
        terminal.send(b"hello\n")
        terminal.expect(rb"hello\s+\S")
        terminal.send(b"\x03")
        terminal.expect(rb"stopped\r\n[^\n]*> ")
        terminal.send(b"and now?\n")
        terminal.expect(rb"and now\?\s+\S")
        terminal.send(b"\x03")
        terminal.expect(rb"stopped\r\n[^\n]*> ")
        terminal.send(b"\x04")
        assert terminal.wait() == 0 and b"Traceback" not in terminal.output


def test_ctrl_c_while_a_picture_is_read(red):
    """The turn has cost nothing: the picture still waits for its question."""
    with scripted("chat", "--json", "--max-tokens", 2, wait=1) as terminal:
        terminal.expect(rb"> ")
        terminal.send(f"/image {red}\n".encode())
        terminal.expect(rb"> ")
        for _ in range(2):
            terminal.send(b"what is it?\n")
            terminal.expect(rb"encoding")
            terminal.send(b"\x03")
            terminal.expect(rb"stopped\r\n[^\n]*> ")
        terminal.send(b"/quit\n")
        assert terminal.wait() == 0


def test_ctrl_c_ends_a_drawing_of_a_chat(tmp_path):
    with Terminal("-m", "janus_runtime.cli", "chat", "--out", tmp_path) as terminal:
        terminal.expect(rb"> ")
        terminal.send(b"/draw a red circle\n")
        terminal.expect(rb"drawing .* 1/")
        terminal.send(b"\x03")
        terminal.expect(rb"stopped\r\n[^\n]*> ")
        terminal.send(b"\x04")
        assert terminal.wait() == 0 and list(tmp_path.iterdir()) == []


def test_ctrl_c_at_the_prompt_clears_the_line_and_a_second_ends():
    with Terminal(*CHAT) as terminal:
        terminal.expect(rb"> ")
        terminal.send(b"/nonsense")
        terminal.expect(rb"/nonsense")
        terminal.interrupt()
        terminal.expect(rb"Ctrl-C again or Ctrl-D ends the chat\r\n[^\n]*> ")
        terminal.send(b"/help\n")
        terminal.expect(rb"/quit +end\r\n[^\n]*> ")
        terminal.interrupt()
        terminal.expect(rb"Ctrl-C again or Ctrl-D ends the chat\r\n[^\n]*> ")
        terminal.interrupt()
        assert terminal.wait() == 130
    assert b"is no command" not in terminal.output and b"Traceback" not in terminal.output


def test_arrow_keys_edit_and_recall(tmp_path):
    pytest.importorskip("readline", reason="this Python has no readline")
    # ONNX Runtime's telemetry would write to HOME, and is not what is tested.
    with Terminal(*CHAT, env={"HOME": str(tmp_path), "ORT_DISABLE_TELEMETRY": "1"}) as terminal:
        terminal.expect(rb"> ")
        terminal.send(b"/elp\x1b[D\x1b[D\x1b[Dh\n")  # three to the left
        terminal.expect(rb"/quit +end\r\n[^\n]*> ")
        terminal.send(b"\x1b[A\n")  # up
        terminal.expect(rb"/quit +end\r\n[^\n]*> ")
        terminal.send(b"\x04")
        assert terminal.wait() == 0
    assert b"is no command" not in terminal.output and list(tmp_path.iterdir()) == []


def test_a_python_without_readline_still_chats(tmp_path):
    (tmp_path / "readline.py").write_text("raise ImportError('no readline here')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from janus_runtime.cli import main; main(['chat'])"
    with Terminal("-c", code) as terminal:
        terminal.expect(rb"> ")
        terminal.send(b"/help\n")
        terminal.expect(rb"/quit +end\r\n> ")
        terminal.send(b"/quit\n")
        assert terminal.wait() == 0


def test_the_prompt_is_no_part_of_what_a_pipe_gets(tmp_path):
    with (tmp_path / "said").open("wb") as said, Terminal(*CHAT, "--max-tokens", 2, stdout=said) as terminal:
        terminal.expect(rb"> ")
        terminal.send(b"hello\n")
        terminal.expect(rb"> ")
        terminal.send(b"\x04")
        assert terminal.wait() == 0
    assert b"> " not in (tmp_path / "said").read_bytes()


EVIL = ["red\x1b[31m ", "\x1b]0;title\x07", "\x9b2J", "a\rb\x7f\tc\n", "红"]


def test_an_answer_does_not_command_the_terminal(red):
    for command in (("describe", red), ("chat",)):
        with scripted(*command, pieces=EVIL) as terminal:
            if command == ("chat",):
                terminal.expect(rb"> ")
                terminal.send(b"hello\n")
            terminal.expect(rb"red\\x1b\[31m \\x1b\]0;title\\x07\\x9b2Ja\\x0db\\x7f(\t| +)c\r\n\xe7\xba\xa2\r\n")


def test_an_error_does_not_command_the_terminal(tmp_path):
    with Terminal("-m", "janus_runtime.cli", "describe", tmp_path / "\x1b[31mred\x9b.png") as terminal:
        assert terminal.wait() == 1
    assert b"\x1b[31m" not in terminal.output and b"\\x1b[31mred\\x9b.png" in terminal.output


def test_a_pipe_gets_an_answer_as_it_is(red):
    code = SCRIPTED.format(pieces=EVIL, wait=0)
    result = subprocess.run([sys.executable, "-c", code, "describe", str(red), "--quiet"], capture_output=True)
    assert result.stdout.decode() == "".join(EVIL) + "\n"


@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGINT, 130, "Interrupted\n"), (signal.SIGTERM, 143, "")])
def test_a_drawing_that_is_ended_keeps_what_is_done(tmp_path, number, code, said):
    command = [sys.executable, "-m", "janus_runtime.cli", "generate", "a red circle", "-n", "999", "--batch-size", "1", "--quiet"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, "--out", str(tmp_path)], preexec_fn=lambda: signal.signal(number, signal.SIG_DFL), **streams)
    first = process.stdout.readline().strip()
    process.send_signal(number)
    others, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (code, said)
    done = [first, *others.split()]
    assert set(done) <= {str(path) for path in tmp_path.iterdir()} and len(list(tmp_path.iterdir())) <= len(done) + 1
    for path in tmp_path.iterdir():
        assert path.suffix == ".png"
        with Image.open(path) as image:
            image.load()
