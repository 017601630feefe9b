"""Is the C++ library as fast as the Python runtime, and what does it take?

    cmake -G Ninja -S cpp -B build/cpp -DJANUS_TESTS=OFF && cmake --build build/cpp
    python -m bench.cpu.embedding BUNDLE --image PHOTO --library build/cpp/libjanus.so --out bench/results/embedding.json

Both in one process, in turn: a picture's prompts, steps and pixels, and a question's photo, prompt and words. Then each runtime's
command in a process of its own, in turn: seconds from start to end of one picture, and its peak memory. Medians.
"""

import os
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from PIL import Image

from bench.cpu.commands import measure, median_run
from bench.machine import where, write_report
from janus_runtime.console.errors import report_errors
from janus_runtime.janus import Janus, load
from testing.c_library import Library, Model, c_image, find_onnxruntime

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
    return answer_times(said.timings, len(said.text_ids))


def ask_by_python(janus: Janus, pixels: np.ndarray) -> dict[str, float]:
    answer = janus.describe(Image.fromarray(pixels), _QUESTION, max_tokens=_WORDS)
    for _ in answer:
        pass
    return answer_times(answer.timings, len(answer.text_ids))


def answer_times(timings: dict[str, float], num_words: int) -> dict[str, float]:
    return {"encode": timings["encode"], "question": timings["prefill"], "word": timings["steps"] / max(num_words - 1, 1)}


def time_commands(bundle: Path, library: Path, rounds: int) -> dict[str, dict]:
    """One picture by each runtime's command, in turn."""
    programs = {"cpp": str((library.parent / "janus-rt-cpp").resolve()), "python": "janus-rt"}
    runs: dict[str, list[dict]] = {name: [] for name in programs}
    with TemporaryDirectory() as folder:
        words = ["generate", _PROMPT, "-n", "1", "--quiet", "--json", "--bundle", str(bundle), "--out", folder]
        for _ in range(rounds):
            for name, program in programs.items():
                runs[name].append(measure(program, *words))
    return {name: median_run(each) for name, each in runs.items()}


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
        runtime = find_onnxruntime()
        os.environ["JANUS_ONNXRUNTIME"] = str(runtime)
        # First: a process counts the largest memory of the one that it was forked from as its own.
        commands = time_commands(bundle, library, rounds)
        found: dict[str, list[dict[str, float]]] = {"cpp": [], "python": []}
        photo = np.asarray(Image.open(image).convert("RGB"))
        with Model(Library(library), bundle, runtime) as model, load(bundle, "cpu") as janus:
            draw_by_cpp(model, 0), draw_by_python(janus, 0)  # opens graphs
            for number in range(rounds):
                pixels = np.ascontiguousarray(np.roll(photo, 37 * number, axis=1))  # Python keeps what it has seen
                found["cpp"].append({**draw_by_cpp(model, number), **ask_by_cpp(model, pixels)})
                found["python"].append({**draw_by_python(janus, number), **ask_by_python(janus, pixels)})
        stages = {name: medians(each) for name, each in found.items()}
        report = {
            "question": "is the C++ library as fast as the Python runtime, and what does it take",
            "bundle": bundle.name,
            **where(),
            "stages_ms": stages,
            "cpp_beside_python": {name: stages["cpp"][name] / stages["python"][name] for name in stages["cpp"]},
            "commands": commands,
        }
        write_report(out, report)


if __name__ == "__main__":
    main()
