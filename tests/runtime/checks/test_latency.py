"""Stages are what they say, in turn; how long they take is nobody's business here."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from janus_runtime.checks import latency
from janus_runtime.checks.latency import Stage, Timing, stages, time_stages
from janus_runtime.cli import main


def test_every_stage_of_both_tasks(janus):
    named = {stage.name: stage for stage in stages(janus._engines, rows=4)}
    assert list(named) == [
        "image prefill", "image step, early", "image step, middle", "image step, late", "image decode",
        "image preview", "vision encode", "text prefill", "text step",
    ]  # fmt: skip
    for stage in named.values():
        stage.call()
    early, late = (named[f"image step, {when}"].reads for when in ("early", "late"))
    model, tokens = janus.manifest.language_model, janus.manifest.image_output.num_tokens
    assert late - early == (tokens - 1) * 4 * 2 * model.num_layers * model.hidden_size * 4  # rows, keys and values, fp32
    weights = sum(janus.manifest.graphs[name].weight_bytes for name in ("language_model.gqa", "image_head"))
    assert early == weights + 20 * 4 * 2 * model.num_layers * model.hidden_size * 4


def test_a_picture_is_encoded_in_every_call(janus, monkeypatch):
    encode = next(stage for stage in stages(janus._engines) if stage.name == "vision encode")
    engine, encoded = janus._engines["vision_encoder"], []
    run = type(engine).run
    monkeypatch.setattr(type(engine), "run", lambda self, inputs: encoded.append(self.name) or run(self, inputs))
    encode.call()
    encode.call()
    assert encoded == [engine.name] * 2


def test_a_half_bundle_has_the_stages_of_its_half(bundles):
    import janus_runtime

    with janus_runtime.load(bundles("tiny", only="understanding")) as janus:
        assert [stage.name for stage in stages(janus._engines)] == ["vision encode", "text prefill", "text step"]


def test_stages_take_turns():
    called = []
    timings = time_stages([Stage("a", lambda: called.append("a"), 10**6), Stage("b", lambda: called.append("b"))], runs=3, seconds=60)
    assert called == ["a", "b"] * 4  # one of each does not count
    assert [(timing.stage, timing.runs, timing.reads) for timing in timings] == [("a", 3, 10**6), ("b", 3, 0)]


def test_percentiles_and_bytes_per_second():
    timing = Timing.of(Stage("step", lambda: None, 4 * 10**9), [0.1] * 19 + [0.3])
    assert timing.p50 == pytest.approx(100) and timing.p95 == pytest.approx(110)
    assert timing.gb_per_s == pytest.approx(40)


def test_bandwidth_is_bytes_over_the_shortest_pass(monkeypatch):
    """On a clock that each look moves on: passes of 4, 2, 1, 2 and 4 s."""
    looks = iter(np.cumsum([0, 4, 1, 2, 1, 1, 1, 2, 1, 4]))
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: float(next(looks))))
    assert latency.read_bandwidth(1 << 20) == pytest.approx((1 << 20) / 1e9)


def test_command(run, tiny, monkeypatch):
    monkeypatch.setattr(latency, "read_bandwidth", lambda: 10.0)
    result = run(main, "bench", "--bundle", tiny, "--seconds", 0.2, "--rows", 4, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 9 and all(row["backend"] == "cpu" and row["rows"] == 4 for row in rows)
    step = rows[1]
    assert step["gb_per_s"] == pytest.approx(step["reads"] / step["p50"] / 1e6) and step["bandwidth_gb_per_s"] == 10
    table = run(main, "bench", "--bundle", tiny, "--seconds", 0.2).stdout
    assert "of 10.0 GB/s read bandwidth" in table and "image step, late" in table


def test_generate_says_its_timings(run, tiny, tmp_path):
    result = run(main, "generate", "a fox", "-n", 1, "--bundle", tiny, "--out", tmp_path, "--timings")
    lines = [line.split() for line in result.stderr.splitlines()[-5:]]
    assert [line[0] for line in lines] == ["load", "prefill", "steps", "step", "decode"]
    assert all(np.isfinite(float(line[1])) and line[2] == "ms" for line in lines)
