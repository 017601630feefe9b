"""Is the C++ library as fast as the Python runtime, and what does it take?

    cmake -G Ninja -S cpp -B build/cpp -DJANUS_TESTS=OFF && cmake --build build/cpp
    python -m bench.cpu.embedding BUNDLE --image PHOTO --command build/cpp/janus-rt-cpp --out bench/results/embedding.json

Each runtime's command draws one picture and answers one question, in processes of their own, in turn: nothing is kept from an earlier
request, which the Python runtime would reuse. Per command the run of median wall time: seconds from start to end, peak memory, and the
times of its stages.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from bench.cpu.commands import measure_in_turn
from bench.machine import where, write_report
from janus_runtime.console.errors import report_errors
from testing.c_library import find_onnxruntime

_PROMPT = "a red fox in the snow, looking at the camera"
_QUESTION = "What is this?"
# Stages that are compared: what a command times, in ms.
_TIMED = {"generate": ("prefill", "step", "decode"), "describe": ("encode", "prefill", "steps")}


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="A photo.")
@click.option("--command", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=Path("build/cpp/janus-rt-cpp"))
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(bundle: Path, image: Path, command: Path, rounds: int, out: Path) -> None:
    """Measure the C++ library's command beside the Python runtime's."""
    with report_errors(debug=True), TemporaryDirectory() as folder:
        os.environ["JANUS_ONNXRUNTIME"] = str(find_onnxruntime())
        common = ["--quiet", "--json", "--bundle", str(bundle)]
        words = {
            "generate": ["generate", _PROMPT, "-n", "1", *common, "--out", folder],
            "describe": ["describe", str(image), "--ask", _QUESTION, "--max-tokens", "32", *common],
        }
        programs = {"cpp": str(command.resolve()), "python": "janus-rt"}
        systems = {name: {stage: [program, *each] for stage, each in words.items()} for name, program in programs.items()}
        found = measure_in_turn(systems, rounds)
        ratios = {
            f"{stage} {name}": round(found["cpp"][stage]["timings_ms"][name] / found["python"][stage]["timings_ms"][name], 3)
            for stage, timed in _TIMED.items()
            for name in timed
        }
        report = {
            "question": "is the C++ library as fast as the Python runtime, and what does it take",
            "bundle": bundle.name,
            **where(),
            "cpp_beside_python": ratios,
            "commands": found,
        }
        write_report(out, report)


if __name__ == "__main__":
    main()
