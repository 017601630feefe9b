"""From an install prefix alone: the examples through CMake and pkg-config, and the command."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_runtime.bundle.bundle import NANO

EXAMPLES = Path(__file__).parents[2] / "cpp" / "examples"


@pytest.fixture(scope="module")
def prefix(build, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("prefix")
    subprocess.run(["cmake", "--install", build, "--prefix", prefix], check=True, capture_output=True)
    return prefix


@pytest.fixture(scope="module")
def run(onnxruntime_library, prefix):
    """Runs a program as a user of the prefix does."""
    (folder,) = prefix.glob("lib*/**/libjanus.so")
    environment = {**os.environ, "JANUS_ONNXRUNTIME": str(onnxruntime_library), "LD_LIBRARY_PATH": str(folder.parent)}

    def run(*words, check=True, **options):
        return subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True, check=check, **options)

    return run


@pytest.fixture(scope="module")
def examples(prefix, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    subprocess.run(["cmake", "-G", "Ninja", "-S", EXAMPLES, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}"], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder], check=True, capture_output=True)
    return folder


def test_a_c_program_by_cmake(run, examples, nano, tmp_path):
    _, janus = nano
    run(examples / "draw", NANO, "a red circle", tmp_path / "drawn.ppm")
    expected = np.asarray(janus.generate("a red circle", seed=7)[0].image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn.ppm")), expected)
    failed = run(examples / "draw", tmp_path, "a red circle", tmp_path / "drawn.ppm", check=False)
    assert failed.returncode == 1 and "is not a bundle" in failed.stderr


def test_a_c_program_by_pkg_config(run, prefix, tmp_path):
    (folder,) = prefix.glob("lib*/**/pkgconfig")
    flags = subprocess.run(
        ["pkg-config", "--define-variable", f"prefix={prefix}", "--cflags", "--libs", "janus"],
        env={**os.environ, "PKG_CONFIG_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", EXAMPLES / "draw.c", *flags, "-o", tmp_path / "draw"], check=True)
    run(tmp_path / "draw", NANO, "a red circle", tmp_path / "drawn.ppm")


def test_a_service_that_draws_on_two_threads(run, examples, nano, tmp_path):
    _, janus = nano
    prompts = ["a red circle", "", "two blue squares", "a green cross"]
    result = run(examples / "service", NANO, tmp_path, input="\n".join(prompts))
    assert result.stderr.splitlines() == ["1: prompt: the prompt is empty; expected some text"]
    for number in (0, 2, 3):
        drawn = Image.open(tmp_path / f"{number}.png")
        assert drawn.text == {"prompt": prompts[number]}
        assert np.array_equal(np.asarray(drawn), np.asarray(janus.generate(prompts[number], seed=number)[0].image))


def test_the_command_draws_what_janus_rt_draws(run, prefix, nano, tmp_path):
    _, janus = nano
    command = prefix / "bin" / "janus-rt-cpp"
    result = run(command, "generate", "a red circle", "Zwei kleine Kreuze!", "-n", 2, "--seed", 5, "--grid", "--json", "--out", tmp_path)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["file"]).name for line in lines] == [
        "000-a-red-circle-seed5.png",
        "001-a-red-circle-seed6.png",
        "002-a-red-circle-seed5-grid.png",
        "003-zwei-kleine-kreuze-seed5.png",
        "004-zwei-kleine-kreuze-seed6.png",
        "005-zwei-kleine-kreuze-seed5-grid.png",
    ]
    expected = janus.generate(["a red circle", "Zwei kleine Kreuze!"], n=2, seed=5)
    for line, picture in zip([line for line in lines if "grid" not in line], expected, strict=True):
        with Image.open(line["file"]) as drawn:
            assert np.array_equal(np.asarray(drawn), np.asarray(picture.image))
            assert drawn.text | {"software": ""} == {
                "prompt": picture.prompt,
                "seed": str(picture.seed),
                "cfg_weight": str(picture.settings.cfg_weight),
                "temperature": str(picture.settings.temperature),
                "top_k": "0",
                "top_p": "1.0",
                "software": "",
                "model": janus.manifest.name,
                "precision": "fp32",
                "backend": "cpu",
            }
    assert "janus-nano, fp32, ONNX Runtime" in result.stderr and "4 pictures in" in result.stderr

    asked = run(command, "describe", lines[0]["file"], "--ask", "What colour is the circle?", "--json")
    answer = janus.describe(lines[0]["file"], "What colour is the circle?")
    assert json.loads(asked.stdout)["text"] == "".join(answer)


def test_the_command_upscales_as_janus_rt_does(run, prefix, nano, tmp_path):
    from janus_runtime.pictures.image import resize

    _, janus = nano
    run(prefix / "bin" / "janus-rt-cpp", "generate", "a red circle", "-n", 1, "--upscale", 200, "--out", tmp_path, "--quiet")
    expected = resize(janus.generate("a red circle")[0].image, (200, 200), Image.Resampling.LANCZOS)
    (file,) = tmp_path.iterdir()
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(expected))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "Usage: janus-rt-cpp"),
        (["generate"], 2, "Missing argument 'PROMPT...'"),
        (["generate", "a", "--size", "3"], 2, "No such option: --size"),
        (["generate", "a", "--top-p", "2"], 2, "--top-p"),
        (["generate", "a", "-n"], 2, "requires an argument"),
        (["generate", "a", "--temperature", "-0.5"], 2, "--temperature"),
        (["generate", " "], 1, "the prompt is empty"),
        (["generate", "a", "--bundle", "/nowhere"], 1, "no bundle at /nowhere"),
        (["generate", "a", "--backend", "cuda"], 1, "runs on the CPU and not on cuda"),
        (["describe", "/nowhere.png"], 1, "no image at /nowhere.png"),
        (["describe", "/nowhere.png", "--onnxruntime", "/nowhere.so"], 1, "ONNX Runtime cannot be opened"),
    ],
)
def test_bad_usage_of_the_command(run, prefix, words, code, message, tmp_path):
    result = run(prefix / "bin" / "janus-rt-cpp", *words, check=False, cwd=tmp_path)
    assert result.returncode == code and message in result.stderr and not result.stdout


def test_help_names_every_flag_of_janus_rt(run, prefix):
    from click.testing import CliRunner

    from janus_runtime.cli import main

    for verb in ("generate", "describe"):
        ours = run(prefix / "bin" / "janus-rt-cpp", verb, "--help").stdout
        theirs = CliRunner().invoke(main, [verb, "--help"]).output
        flags = {word.strip(",/") for word in theirs.split() if word.startswith("--")}
        assert flags - {word.strip(",") for word in ours.split()} <= {"--exif-orientation/--no-exif-orientation"}
