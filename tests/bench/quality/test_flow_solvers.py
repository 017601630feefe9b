"""The comparison of solvers counts what it says, on a model of nano-flow's size that draws noise."""

import json

import bench.quality.flow_solvers as flow_solvers
from bench.table import solvers


def test_scores_and_paired_losses(run, bundles, tmp_path):
    out = tmp_path / "solvers.json"
    drawings = ("--drawing", "euler:3", "--drawing", "ab2:2")
    result = run(flow_solvers.main, bundles("tiny-flow"), *drawings, "--seed", 1, "--seed", 2, "--draws", 9, "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert (report["baseline"], report["draws"], report["seeds"]) == ("euler 3", 18, [1, 2])
    assert report["shifts"] == {"euler": 1.0, "ab2": 2.0} and set(report["samples"]) == {"1", "2"}
    assert report["all"]["euler 3"]["losses"] == {} and report["all"]["ab2 2"]["losses"]["colour"]["draws"] == 18


def test_other_models_are_refused(run, bundles):
    for folder, drawing in ((bundles("tiny"), "euler:3"), (bundles("tiny-flow"), "euler")):
        result = run(flow_solvers.main, folder, "--drawing", drawing, "--seed", 1, "--draws", 1)
        assert result.exit_code in (1, 2) and ("such as euler:30" in result.stderr or "not nano-flow" in result.stderr)


def test_joined_samples_are_all_draws():
    assert flow_solvers.join([{"colour": [True, None]}, {"colour": [False]}]) == {"colour": [True, None, False]}


def test_the_table():
    lost = {"colour_and_shape": {"loss": 0.0042, "standard_error": 0.006}}
    rows = {
        "euler 30": {"scores": {"colour_and_shape": 0.915}, "losses": {}},
        "ab2 15": {"scores": {"colour_and_shape": 0.911}, "losses": lost},
    }
    report = {"draws": 1536, "cfg_weight": 2.0, "shifts": {"euler": 1.0, "ab2": 2.0}, "all": rows}
    assert solvers(report).splitlines()[2:] == ["| euler | 30 | 91.5% |  |", "| ab2, shift 2 | 15 | 91.1% | +0.4 ± 0.6 points |"]
