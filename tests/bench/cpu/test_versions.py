"""Commands of this version are run beside those of an earlier one, in turn."""

import json
from pathlib import Path

from bench.cpu import commands, versions


def test_this_version_and_an_earlier_one_in_turn(monkeypatch, run, tmp_path):
    for name in ("now", "then", "tree"):
        (tmp_path / name).mkdir()
    photo, out, ran = tmp_path / "photo.png", tmp_path / "report.json", []
    photo.touch()

    def measure(*command, cwd):
        ran.append((Path(command[command.index("--bundle") + 1]).name, cwd))
        return {"wall_s": float(len(ran)), "peak_gb": 1.0, "timings_ms": {}}

    monkeypatch.setattr(commands, "measure", measure)
    earlier = ["--earlier", tmp_path / "tree", tmp_path / "then"]
    result = run(versions.main, tmp_path / "now", *earlier, "--image", photo, "--rounds", 1, "--only", "first word", "--out", out)
    assert result.exit_code == 0, result.output
    # The first round only warms.
    assert ran == [("now", versions._ROOT), ("then", tmp_path / "tree")] * 2
    results = json.loads(out.read_text())["results"]
    assert [results[name]["first word"]["wall_s"] for name in ("now", "earlier then")] == [3.0, 4.0]


def test_bundles_of_one_name_are_refused(run, tmp_path):
    for name in ("a/int4", "b/int4", "then", "tree"):
        (tmp_path / name).mkdir(parents=True)
    arguments = [tmp_path / "a/int4", tmp_path / "b/int4", "--earlier", tmp_path / "tree", tmp_path / "then", "--image", __file__]
    result = run(versions.main, *arguments)
    assert result.exit_code == 2 and "got int4, int4, earlier then; give bundles of different names" in result.output


def test_the_module_of_the_tree_is_the_one_that_runs(tmp_path):
    package = tmp_path / "janus_runtime"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text('print(\'{"timings": {"then": 1.0}}\')')
    assert commands.measure(versions.sys.executable, "-m", "janus_runtime.cli", cwd=tmp_path)["timings_ms"] == {"then": 1.0}
