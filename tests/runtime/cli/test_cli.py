"""janus-rt as users type it."""

import json
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from janus_runtime.cli import main
from janus_runtime.cli.picture_folder import PictureFolder, slug
from janus_runtime.cli.repl import COMMANDS
from janus_runtime.pictures.image import open_image, preprocess


@pytest.fixture
def red(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


def objects(result):
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def seen_sizes(monkeypatch):
    """Sizes of the pictures that reach preprocessing."""
    sizes = []
    for module in ("chat", "janus"):

        def record(picture, spec):
            sizes.append(picture.size)
            return preprocess(picture, spec)

        monkeypatch.setattr(f"janus_runtime.{module}.preprocess", record)
    return sizes


@pytest.mark.parametrize("command", ["describe", "chat", "generate"])
def test_photos_are_turned_upright_unless_asked_otherwise(run, tiny, tmp_path, seen_sizes, command):
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "photo.png"
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    arguments = {
        "describe": ("describe", path, "--max-tokens", 1),
        "chat": ("chat", "--max-tokens", 1),
        "generate": ("generate", "fox", "-n", 1, "--image", path, "--out", tmp_path),
    }[command]
    for flags in ((), ("--exif-orientation",), ("--no-exif-orientation",)):
        result = run(main, *arguments, *flags, "--bundle", tiny, input=f"/image {path}\nhello\n")
        assert result.exit_code == 0, result.output
    assert seen_sizes == [(30, 40), (30, 40), (40, 30)]


def test_generate_writes_numbered_files_with_their_parameters(run, tiny, tmp_path):
    out = tmp_path / "pictures" / "here"
    result = run(main, "generate", "A red fox!", "snow", "-n", 2, "--seed", 7, "--bundle", tiny, "--out", out)
    names = ["000-a-red-fox-seed7.png", "001-a-red-fox-seed8.png", "002-snow-seed7.png", "003-snow-seed8.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert result.stdout.splitlines() == [str(out / name) for name in names]
    with Image.open(out / names[1]) as image:
        assert image.size == (64, 64)
        expected = {"prompt": "A red fox!", "seed": "8", "cfg_weight": "5.0", "temperature": "1.0", "top_k": "0", "top_p": "1.0"}
        assert {key: image.text[key] for key in expected} == expected
        assert image.text["backend"] == "cpu" and image.text["software"].startswith("janus-rt ")


def test_nothing_is_overwritten(run, tiny, tmp_path):
    arguments = ("generate", "fox", "-n", 1, "--bundle", tiny, "--out", tmp_path, "--quiet")
    (tmp_path / "041-other.png").write_text("mine")
    for number in (42, 43):
        assert run(main, *arguments).stdout.strip() == str(tmp_path / f"{number:03}-fox-seed0.png")
    assert (tmp_path / "041-other.png").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_generate_json(run, tiny, tmp_path):
    rows = objects(run(main, "generate", "fox", "snow", "-n", 1, "--json", "--bundle", tiny, "--out", tmp_path))
    assert [(row["prompt"], row["seed"]) for row in rows] == [("fox", 0), ("snow", 0)]
    for row in rows:
        assert row["backend"] == "cpu" and row["bundle"] == str(tiny) and os.path.exists(row["file"])
        assert row["timings"]["steps"] > 0


def test_grid_and_upscale(run, tiny, tmp_path):
    run(main, "generate", "fox", "-n", 4, "--grid", "--upscale", 100, "--bundle", tiny, "--out", tmp_path)
    sizes = {path.name: open_image(path).size for path in tmp_path.iterdir()}
    assert sizes.pop("004-fox-seed0-grid.png") == (202, 202)
    assert set(sizes.values()) == {(100, 100)} and len(sizes) == 4


def test_a_grid_follows_the_pictures_of_its_prompt(run, tiny, tmp_path):
    result = run(main, "generate", "fox", "fox", "snow", "-n", 2, "--grid", "--batch-size", 3, "--bundle", tiny, "--out", tmp_path)
    names = [Path(line).stem for line in result.stdout.splitlines()]
    each = ["seed0", "seed1", "seed0-grid"]
    assert names == [f"{i:03}-{prompt}-{end}" for i, (prompt, end) in enumerate((p, e) for p in ("fox", "fox", "snow") for e in each)]


def test_generate_holds_no_more_than_a_batch(run, tiny, tmp_path, monkeypatch):
    """The pictures of a batch and the one being written: memory does not grow with -n."""
    save, alive, counts = PictureFolder.save, weakref.WeakSet(), []

    def count(self, picture):
        alive.add(picture)
        counts.append(len(alive))
        return save(self, picture)

    monkeypatch.setattr(PictureFolder, "save", count)
    assert run(main, "generate", "fox", "-n", 100, "--batch-size", 8, "--quiet", "--bundle", tiny, "--out", tmp_path).exit_code == 0
    assert len(counts) == 100 and max(counts) <= 9


def test_same_seed_same_pixels(run, tiny, tmp_path):
    arguments = ("generate", "fox", "-n", 1, "--seed", 5, "--bundle", tiny, "--out", tmp_path, "--quiet")
    first, second = (open_image(run(main, *arguments).stdout.strip()) for _ in range(2))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_describe_streams_text(run, tiny, red):
    result = run(main, "describe", red, red, "--ask", "Same?", "--max-tokens", 5, "--bundle", tiny)
    assert result.exit_code == 0 and result.stdout.endswith("\n") and result.stdout.strip()
    (row,) = objects(run(main, "describe", red, red, "--ask", "Same?", "--max-tokens", 5, "--bundle", tiny, "--json"))
    assert row["text"] + "\n" == result.stdout and row["prompt"] == "Same?" and row["stop"] in ("eos", "length")


def test_chat(run, tiny, red, tmp_path):
    lines = f"hello\n/image '{red}'\nwhat is it?\n/draw a fox\n\n/quit\nnever\n"
    rows = objects(run(main, "chat", "--bundle", tiny, "--json", "--max-tokens", 3, "--out", tmp_path / "drawn", input=lines))
    assert [(row["prompt"], row["seed"]) for row in rows] == [("hello", 0), ("what is it?", 1), ("a fox", 2)]
    assert os.path.exists(rows[2]["file"]) and all("timings" in row for row in rows)


def test_a_chat_may_forget_a_picture_and_needs_no_folder_to_write_to(run, tiny, red):
    arguments = ("chat", "--bundle", tiny, "--json", "--max-tokens", 40, "--out", "/proc/none")
    (plain,) = objects(run(main, *arguments, input="hello\n"))
    (asked,) = objects(run(main, *arguments, input=f"/image {red}\nhello\n"))
    (forgotten,) = objects(run(main, *arguments, input=f"/image {red}\n/forget\nhello\n"))
    assert forgotten["text"] == plain["text"] != asked["text"]


def test_new_starts_the_conversation_again(run, tiny, red):
    lines = f"hello\n/image {red}\n/new\nhello\n"
    first, again = objects(run(main, "chat", "--bundle", tiny, "--json", "--max-tokens", 20, "--temperature", 1, input=lines))
    assert (first["text"], first["seed"]) == (again["text"], again["seed"])


def test_a_full_conversation_says_how_to_start_another(run, tiny):
    lines = "hello\n" * 30 + "/new\nhello\n"
    result = run(main, "chat", "--bundle", tiny, "--json", "--max-tokens", 5, "--max-length", 400, input=lines)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: the conversation would have") and error.endswith("; /new starts one")
    assert rows[-1]["text"] == rows[0]["text"] and rows[-1]["seed"] == 0


def test_help_of_a_chat_names_its_commands(run, tiny):
    result = run(main, "chat", "--bundle", tiny, "--quiet", input="/help\n")
    assert result.exit_code == 0 and all(command in result.stderr for command in COMMANDS) and result.stdout == ""


def test_a_line_that_is_no_utf8_costs_only_itself(tiny):
    command = [sys.executable, "-m", "janus_runtime.cli", "chat", "--bundle", str(tiny), "--quiet", "--max-tokens", "2"]
    result = subprocess.run(command, input=b"hello\n\xff\nhello\n", capture_output=True)
    assert result.returncode == 1 and result.stderr.decode().strip() == "Error: the text is not valid UTF-8; save or type it again as UTF-8"
    assert len(result.stdout.decode().splitlines()) >= 2


def test_a_chat_ends_when_its_reader_goes(tiny):
    command = f"yes hi | '{sys.executable}' -m janus_runtime.cli chat --bundle '{tiny}' --quiet --max-tokens 1 | head -c 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert result.stderr == ""


@pytest.mark.parametrize("closed", ["2>&-", "<&-"])
def test_closed_streams(tiny, tmp_path, closed):
    for command in (f"generate fox -n 1 --out '{tmp_path}'", "chat"):
        line = f"'{sys.executable}' -m janus_runtime.cli {command} --bundle '{tiny}' {closed}"
        result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert result.returncode == 0 and "Error" not in result.stderr, result.stderr


def test_a_mistake_in_a_chat_does_not_end_it(run, tiny, tmp_path):
    lines = "/image absent.png\n/nonsense\nhello\n"
    result = run(main, "chat", "--bundle", tiny, "--max-tokens", 2, "--out", tmp_path, input=lines)
    assert "no image at absent.png" in result.stderr and "'/nonsense' is no command; there are /image PATH" in result.stderr
    assert all(command in result.stderr for command in ("/new", "/help", "/quit"))
    assert result.stdout.strip() and result.exit_code == 1


def test_info(run, tiny):
    result = run(main, "info", "--bundle", tiny)
    assert "2 layers, 64 wide" in result.stdout and "fp32" in result.stdout
    (row,) = objects(run(main, "info", "--bundle", tiny, "--json"))
    assert row["language_model"]["num_layers"] == 2 and row["bundle"] == str(tiny)


def test_verify(run, tiny):
    result = run(main, "verify", "--bundle", tiny)
    assert result.exit_code == 0 and "FAILED" not in result.stdout
    rows = objects(run(main, "verify", "--bundle", tiny, "--json"))
    others = {"language_model.slice", "language_model.inplace"}  # flavours of other backends
    assert {row["graph"] for row in rows if "graph" in row} == set(json.loads((tiny / "manifest.json").read_text())["graphs"]) - others
    assert all(row["passed"] for row in rows)


def test_random_weights_are_said_plainly(run, tiny):
    result = run(main, "info", "--bundle", tiny)
    assert "weights of this bundle are random" in result.stderr
    assert run(main, "info", "--bundle", tiny, "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "fox", "--bundle", "absent"), "no bundle at absent; make one with"),
        (("generate", " ", "--bundle", "TINY"), "the prompt is empty"),
        (("generate", "fox " * 600, "--bundle", "TINY"), "this model takes 1008 beside a picture"),
        (("describe", "absent.png", "--bundle", "TINY"), "no image at absent.png"),
        (("info", "--bundle", "TINY", "--backend", "cuda"), "is here without CUDA; run pip uninstall onnxruntime"),
        (("generate", "fox \udcff", "--bundle", "TINY"), "the text is not valid UTF-8"),
        (("info", "--bundle", "TINY/manifest.json"), "is a file; give the bundle's folder"),
    ],
)
def test_failures_are_one_line_and_exit_code_1(run, tiny, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run(main, *[argument.replace("TINY", str(tiny)) for argument in arguments], "--quiet")
    assert result.exit_code == 1 and result.stdout == ""
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("generate",),
        ("generate", "x", "-n", "0"),
        ("generate", "x", "--seed", "-1"),
        ("nonsense",),
        ("describe", "x", "--top-p", "2"),
        ("generate", "x", "--temperature", "nan"),
        ("generate", "x", "--cfg-weight", "1e9"),
        ("describe", "x", "--top-p", "nan"),
        ("generate", "x", "--image-weight", "nan"),
        ("chat", "--temperature", "inf"),
        ("bench", "--seconds", "nan"),
        ("bench", "--seconds", "inf"),
    ],
)
def test_bad_usage_is_exit_code_2(run, arguments):
    assert run(main, *arguments).exit_code == 2


@pytest.mark.parametrize(
    ("charset", "out", "line"),
    [
        ("latin-1", "o", rb"/o/00[01]-kreis-\\u7ea2-seed[01]\.png\n"),
        ("ascii", "o", rb"/o/00[01]-kreis-\\u7ea2-seed[01]\.png\n"),
        ("utf-8", "b\udcff", rb"/b\xff/00[01]-kreis-\xe7\xba\xa2-seed[01]\.png\n"),
        ("ascii", "b\udcff", rb"/b\xff/00[01]-kreis-\\u7ea2-seed[01]\.png\n"),
    ],
)
def test_a_name_that_stdout_cannot_encode_costs_no_picture(tiny, tmp_path, charset, out, line):
    command = ["generate", "Kreis 红", "-n", "2", "--batch-size", "1", "--bundle", str(tiny), "--out", str(tmp_path / out)]
    result = CliRunner(charset=charset).invoke(main, command)
    assert result.exit_code == 0 and len(re.findall(line, result.stdout_bytes)) == 2
    result = CliRunner(charset=charset).invoke(main, [*command, "--json"])
    files = [json.loads(text)["file"] for text in result.stdout_bytes.decode(charset).splitlines()]
    assert len(files) == 2 and all(os.path.exists(file) for file in files) and len(list((tmp_path / out).iterdir())) == 4


def test_file_names_that_this_system_cannot_express(tiny, tmp_path):
    """In a C locale of old, names are ASCII; what is left of the prompt names the picture."""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "janus_runtime.cli", "chat", "--bundle", str(tiny), "--quiet", "--out", str(tmp_path)]
    result = subprocess.run(command, input="/draw ein 红 Kreis\n".encode(), capture_output=True, env={**os.environ, **locale})
    assert (result.returncode, result.stderr) == (0, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["000-ein-kreis-seed0.png"]
    with Image.open(tmp_path / "000-ein-kreis-seed0.png") as image:
        assert image.text["prompt"] == "ein 红 Kreis"


def test_out_that_is_a_file(run, tiny, tmp_path):
    (tmp_path / "file").write_text("")
    result = run(main, "generate", "fox", "--bundle", tiny, "--out", tmp_path / "file")
    assert result.exit_code == 2 and "file" in result.stderr


def test_a_full_disk_leaves_nothing_half_written(run, tiny, tmp_path, monkeypatch):
    def full(self, file, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    result = run(main, "generate", "fox", "-n", 1, "--bundle", tiny, "--out", tmp_path, "--quiet")
    assert result.exit_code == 1 and "No space left on device" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dangling_out_is_said_before_drawing(run, tiny, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "absent" / "far")
    result = run(main, "generate", "fox", "-n", 1, "--bundle", tiny, "--out", tmp_path / "link", "--quiet")
    assert result.exit_code == 1 and "cannot write to" in result.stderr


def test_debug_shows_the_traceback(tiny):
    command = [sys.executable, "-m", "janus_runtime.cli", "generate", "", "--bundle", str(tiny), "--debug"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" in result.stderr and "PromptError" in result.stderr


def test_a_closed_pipe_is_not_a_traceback(tiny):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "janus_runtime.cli", "info", "--bundle", str(tiny), "--quiet"]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red fox!", "a-red-fox"),
        ("../../etc/passwd", "etc-passwd"),
        ("雪の中の狐", "雪の中の狐"),
        ("!!!", "picture"),
        ("x" * 99, "x" * 40),
    ],
)
def test_slug(text, expected):
    assert slug(text) == expected


def test_slug_cuts_between_characters():
    assert len(slug("狐" * 30).encode()) <= 40
