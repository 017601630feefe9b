"""A system in a process of its own: what it says, what it does when asked, and what is said when it ends by itself."""

import os
import sys
from pathlib import Path

import pytest

from bench.cpu import rivals
from bench.cpu.rivals import Process, earlier, shape_of
from janus_runtime.checks.latency import stages
from janus_runtime.errors import JanusError

# A system of two stages. What it prints by itself must not pass for an answer.
SYSTEM = """
import stage_process
import os, signal, sys

calls = []
def quick():
    print("a library has something to say")
    calls.append(1)
def deadly():
    os.kill(os.getpid(), signal.SIGKILL)
def wrong():
    raise RuntimeError("no such thing")

print("so does another")
stage_process._TRIAL_S = 0.05
slow, fast = lambda: sum(range(200_000)), lambda: None
chosen = [stage_process.fastest(ways) for ways in ({"slow": slow, "fast": fast}, {"first": slow, "same": slow})]
found = [stage_process.Stage("quick", quick, 7), stage_process.Stage("deadly", deadly), stage_process.Stage("wrong", wrong)]
stage_process.serve(found, ["numpy"], chosen=chosen)
"""


@pytest.fixture
def system(tmp_path):
    script = tmp_path / "system.py"
    script.write_text(SYSTEM)
    folder = str(Path(rivals.__file__).parent)
    with Process("A system", [sys.executable, script], "it needs nothing", {"PYTHONPATH": folder}) as process:
        yield process


def test_stages_of_another_process(system):
    quick, *_ = system.stages()
    assert (quick.name, quick.reads) == ("quick", 7)
    quick.call()
    quick.call()
    assert system.about["chosen"][0] == "fast" and set(system.about) == {"versions", "peak_gb", "own_gb", "mapped_gb", "chosen"}
    assert 0 < system.about["own_gb"] < 1 and list(system.about["versions"]) == ["numpy"]
    assert system.name == "A system"


@pytest.mark.parametrize("stage, how", [("deadly", "was ended by SIGKILL"), ("wrong", "ended with exit code 1")])
def test_a_process_that_dies(system, stage, how):
    call = next(found.call for found in system.stages() if found.name == stage)
    for _ in range(2):  # The second finds nobody to ask.
        with pytest.raises(JanusError, match=f"A system's process {how} in the stage {stage}; .* fewer systems"):
            call()


def test_a_process_that_is_never_ready(tmp_path):
    with pytest.raises(JanusError, match="^X's process ended with exit code 3 before it was ready; it needs Y$"):
        Process("X", [sys.executable, "-c", "raise SystemExit(3)"], "it needs Y")
    with pytest.raises(JanusError, match="X did not start: .*nobody.*; it needs Y"):
        Process("X", [tmp_path / "nobody"], "it needs Y")


def test_the_process_ends_with_the_context(tmp_path):
    code = "import sys; print('{\"stages\": []}', flush=True); sys.stdin.read()"
    with Process("X", [sys.executable, "-c", code], "") as process:
        assert process.about == {}
        pid = process._process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_earlier_version_has_the_stages_of_ours(janus, tiny):
    tree = Path(rivals.__file__).parents[2]
    with earlier(tree, tiny, rows=2) as process:
        theirs = list(process.stages())
        assert process.name == "earlier fp32"
        assert [(stage.name, stage.reads) for stage in theirs] == [(stage.name, stage.reads) for stage in stages(janus._engines)]
        for name in ("image step, late", "text prefill"):
            next(stage for stage in theirs if stage.name == name).call()
        assert process.about["versions"]["onnxruntime"] and set(process.about["commit"]) <= set("0123456789abcdef")


def test_an_earlier_version_runs_from_its_own_tree(tmp_path, tiny):
    (tmp_path / "janus_runtime").mkdir()
    (tmp_path / "janus_runtime" / "__init__.py").write_text("raise SystemExit(5)")
    with pytest.raises(JanusError, match=f"exit code 5 before it was ready; {tiny} must be a bundle that {tmp_path} can open"):
        earlier(tmp_path, tiny, rows=2)


def test_neither_a_tree_nor_a_bundle(tmp_path, tiny):
    with pytest.raises(JanusError, match="has no folder janus_runtime; make a tree with 'git worktree add"):
        earlier(tmp_path, tiny, rows=2)
    with pytest.raises(JanusError, match="is not a bundle .* give one that"):
        earlier(Path(rivals.__file__).parents[2], tmp_path, rows=2)


def test_the_shape_is_that_of_our_stages(janus, checkpoints):
    shape = shape_of(checkpoints("tiny", "hf"), rows=2)
    assert list(shape["image_steps"]) == [stage.name for stage in stages(janus._engines) if stage.name.startswith("image step")]
    assert shape["image_steps"]["image step, late"] == shape["prompt_tokens"] + janus.manifest.image_output.num_tokens - 1
    assert shape["text_tokens"] == janus.manifest.image_input.num_tokens + 40
