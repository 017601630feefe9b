"""Is the C++ library as fast as the Python runtime, and what does it take?

    cmake -G Ninja -S cpp -B build/cpp -DJANUS_TESTS=OFF && cmake --build build/cpp
    python -m bench.cpu.embedding BUNDLE --image PHOTO --library build/cpp/libjanus.so --out bench/results/embedding.json

Both in one process, in turn: a picture's prompts, steps and pixels, and a question's photo, prompt and words. Then each runtime's
command in a process of its own, in turn: seconds from start to end of one picture, and the most resident memory. Medians.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import onnxruntime
from PIL import Image

from bench.machine import where, write_report
from janus_runtime.console.errors import report_errors
from janus_runtime.janus import Janus, load
from testing.c_library import Library, Model, c_image

_PROMPT = "a red fox in the snow, looking at the camera"
_QUESTION = "What is this?"
_WORDS = 32


def draw_by_cpp(model: Model, seed: int) -> dict[str, float]:
    (picture,) = model.generate(_PROMPT, seed=seed)
    assert picture.image_ids is not None
    timings = picture.timings
    return {"prefill": timings["prefill"], "step": timings["steps"] / (len(picture.image_ids) - 1), "decode": timings["decode"]}


def draw_by_python(janus: Janus, seed: int) -> dict[str, float]:
    timings = janus.generate(_PROMPT, seed=seed)[0].timings
    return {name: timings[name] for name in ("prefill", "step", "decode")}


def ask_by_cpp(model: Model, pixels: np.ndarray) -> dict[str, float]:
    said = model.describe([c_image(pixels)], _QUESTION, max_tokens=_WORDS)
    return {"encode": said.timings["encode"], "question": said.timings["prefill"], "word": said.timings["steps"] / (len(said.text_ids) - 1)}


def ask_by_python(janus: Janus, pixels: np.ndarray) -> dict[str, float]:
    answer = janus.describe(Image.fromarray(pixels), _QUESTION, max_tokens=_WORDS)
    for _ in answer:
        pass
    return {
        "encode": answer.timings["encode"],
        "question": answer.timings["prefill"],
        "word": answer.timings["steps"] / (len(answer.text_ids) - 1),
    }


def run_command(words: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds and MB of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(said)
    return {"seconds": time.perf_counter() - start, "resident_mb": usage.ru_maxrss / 1024}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="A photo.")
@click.option("--library", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=Path("build/cpp/libjanus.so"))
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(bundle: Path, image: Path, library: Path, rounds: int, out: Path) -> None:
    """Measure the C++ library beside the Python runtime."""
    with report_errors(debug=True):
        (runtime,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
        found: dict[str, list[dict[str, float]]] = {"cpp": [], "python": []}
        photo = np.asarray(Image.open(image).convert("RGB"))
        with Model(Library(library), bundle, runtime) as model, load(bundle, "cpu") as janus:
            draw_by_cpp(model, 0), draw_by_python(janus, 0)  # opens graphs
            for number in range(rounds):
                pixels = np.ascontiguousarray(np.roll(photo, 37 * number, axis=1))  # Python keeps what it has seen
                found["cpp"].append({**draw_by_cpp(model, number), **ask_by_cpp(model, pixels)})
                found["python"].append({**draw_by_python(janus, number), **ask_by_python(janus, pixels)})
        stages = {name: medians(each) for name, each in found.items()}
        commands: dict[str, list[dict[str, float]]] = {"cpp": [], "python": []}
        environment = {**os.environ, "JANUS_ONNXRUNTIME": str(runtime)}
        with TemporaryDirectory() as folder:
            words = ["generate", _PROMPT, "-n", "1", "--quiet", "--bundle", str(bundle), "--out", folder]
            programs = {"cpp": [str(library.parent / "janus-rt-cpp")], "python": [sys.executable, "-m", "janus_runtime.cli"]}
            for _ in range(rounds):
                for name, program in programs.items():
                    commands[name].append(run_command([*program, *words], environment))
        report = {
            "question": "is the C++ library as fast as the Python runtime, and what does it take",
            "bundle": bundle.name,
            **where(),
            "stages_ms": stages,
            "cpp_beside_python": {name: stages["cpp"][name] / stages["python"][name] for name in stages["cpp"]},
            "commands": {name: medians(each) for name, each in commands.items()},
        }
        write_report(out, report)


if __name__ == "__main__":
    main()
