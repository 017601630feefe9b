"""Commands are measured beside those of transformers: the same prompts and settings, in turn."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from bench.cpu import commands, transformers_command
from testing.reference import Reference


def test_a_process_is_measured_and_what_it_printed_is_kept():
    printed = {"tokens": 5, "timings": {"load": 1.26}, "text": "a fox"}
    row = commands.measure(sys.executable, "-c", f"import json; print('noise'); print(json.dumps({printed!r}))")
    assert row["tokens"] == 5 and row["timings_ms"] == {"load": 1.3}
    assert row["wall_s"] > 0 and 0 < row["peak_gb"] < 20


def test_a_command_that_fails_ends_the_measurement():
    with pytest.raises(commands.click.ClickException, match="failed with 3"):
        commands.measure(sys.executable, "-c", "raise SystemExit(3)")


def test_systems_run_in_turn_and_the_median_run_is_kept(monkeypatch):
    order, walls = [], iter([3.0, 9.0, 1.0, 1.0, 1.0, 7.0, 1.0, 1.0, 2.0, 8.0, 1.0, 1.0])

    def measure(*command, cwd=None):
        order.append(command)
        return {"wall_s": next(walls), "peak_gb": len(order)}

    monkeypatch.setattr(commands, "measure", measure)
    systems = {name: {stage: [name, stage] for stage in ("generate", "describe")} for name in ("int4", "transformers bf16")}
    results = commands.measure_in_turn(systems, rounds=3)
    once = [(name, stage) for stage in ("generate", "describe") for name in systems]
    assert order == once * 3
    assert results["int4"]["generate"] == {"wall_s": 2.0, "peak_gb": 9, "runs_wall_s": [3.0, 1.0, 2.0]}
    assert results["transformers bf16"]["generate"] == {"wall_s": 8.0, "peak_gb": 10, "runs_wall_s": [9.0, 7.0, 8.0]}


def test_of_two_runs_the_shorter_is_kept():
    assert commands.median_run([{"wall_s": 5.0, "peak_gb": 1}, {"wall_s": 4.0, "peak_gb": 2}])["wall_s"] == 4.0


def test_the_report(monkeypatch, run, checkpoints, tmp_path):
    """Which commands are run; none is, here."""
    ran = []

    def measure(*command, cwd=None):
        ran.append(command)
        if "--out" in command and command[0] == "janus-export":
            (tmp_path / command[command.index("--out") + 1]).mkdir()
        return {"wall_s": 1.0, "peak_gb": 1.0, "timings_ms": {}}

    monkeypatch.setattr(commands, "measure", measure)
    out = tmp_path / "report.json"
    arguments = ["--image", __file__, "--rounds", 1, "--max-tokens", 7, "--out", out]
    result = run(commands.main, checkpoints("tiny", "hf"), "--precision", "int4", "--rival", "fp32", *arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert list(report["results"]) == ["int4", "transformers fp32"] and report["max_tokens"] == 7 and report["commit"]
    assert list(report["results"]["int4"]) == ["export", "verify", "generate", "describe"]
    assert report["results"]["int4"]["export"]["bundle_gb"] == 0
    ours, theirs = (command for command in ran if "describe" in command)
    for name in ("--ask", "--max-tokens"):
        assert ours[ours.index(name) + 1] == theirs[theirs.index(name) + 1]


def test_rivals_need_the_hf_layout(run, checkpoints, tmp_path):
    arguments = ["--image", __file__, "--rival", "bf16", "--out", tmp_path / "x.json"]
    result = run(commands.main, checkpoints("tiny", "original"), *arguments)
    assert result.exit_code == 2 and "rivals need the HF layout" in result.output


@pytest.fixture(scope="module")
def theirs(checkpoints):
    return transformers_command.Command(checkpoints("tiny", "hf"), "bf16")


def test_transformers_gets_our_prompts(theirs, checkpoints):
    reference = Reference.load(checkpoints("tiny", "hf"))
    drawing = transformers_command.image_inputs(theirs.processor, "a red fox in the snow")
    assert np.array_equal(drawing["input_ids"][0], reference.generation_ids("a red fox in the snow"))
    question = transformers_command.text_inputs(theirs.processor, "What is this?", Image.new("RGB", (60, 40)))
    assert np.array_equal(question["input_ids"][0], reference.question_ids("What is this?", 1))
    assert question["pixel_values"].shape == (1, 3, reference.image_size, reference.image_size)


def test_transformers_draws_and_answers(theirs):
    picture = theirs.generate("a red fox in the snow")
    size = theirs.model.config.vision_config.image_size
    assert picture.size == (size, size) and len(set(picture.get_flattened_data())) > 10
    _, tokens = theirs.describe(Image.new("RGB", (60, 40), "red"), "What is this?", 4)
    assert tokens == 4 and {"load", "generate", "decode"} == theirs.timings.keys()


def test_transformers_command_prints_what_is_measured(run, checkpoints, tmp_path):
    out = tmp_path / "fox.png"
    result = run(transformers_command.main, "generate", checkpoints("tiny", "hf"), "a fox", "--dtype", "fp32", "--out", out)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["file"] == str(out)
    with Image.open(out) as picture:
        assert picture.mode == "RGB"
