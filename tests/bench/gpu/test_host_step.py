"""The host's time of a step, on a driver that does nothing: a number for each way to repeat it."""

import json

from bench.gpu import host_step
from tests.marks import needs_int8_cache


@needs_int8_cache
def test_every_way_is_timed(run, bundles, tmp_path):
    result = run(host_step.main, bundles("tiny", "int4"), "--rounds", 1, "--out", tmp_path / "host.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "host.json").read_text())
    assert len(report["median_us"]) == 3 and min(report["median_us"].values()) > 0
    assert all(name in result.output for name in report["median_us"])
