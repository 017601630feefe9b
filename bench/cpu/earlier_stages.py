"""An earlier version of ours on every stage, for `bench.cpu.rivals`: a process that imports `janus_runtime` from another work tree.

    python bench/cpu/earlier_stages.py BUNDLE ROWS

The tree is the one that PYTHONPATH names.
"""

import stage_process  # isort: skip

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import janus_runtime

try:
    from janus_runtime.checks.latency import stages
except ModuleNotFoundError:  # Before the runtime was split into folders.
    from janus_runtime.latency import stages


def main() -> None:
    bundle, rows = sys.argv[1], int(sys.argv[2])
    tree = Path(janus_runtime.__file__).parents[1]
    commit = subprocess.run(["git", "-C", tree, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    with janus_runtime.load(bundle, "cpu") as janus:
        # Opened before any is timed.
        for graph in janus.manifest.graphs:
            janus._engines[graph]
        # Some versions keep what they have encoded and would time a look-up.
        kept = getattr(janus._engines, "_features", {})
        found = [stage_process.Stage(stage.name, partial(run, kept, stage.call), stage.reads) for stage in stages(janus._engines, rows)]
        stage_process.serve(found, ["onnxruntime", "numpy"], commit=commit)


def run(kept: dict[str, object], call: Callable[[], object]) -> None:
    kept.clear()
    call()


if __name__ == "__main__":
    main()
