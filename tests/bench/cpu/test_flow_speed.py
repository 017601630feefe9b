"""Steps of a small JanusFlow beside the published loop: every system from the same latents."""

import json

import numpy as np

from bench.cpu.flow_speed import main, step_gflop
from bench.table import flow
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.checks.tolerances import FP32, INT8


def test_report(run, checkpoints, bundles, tmp_path):
    out = tmp_path / "results" / "flow.json"
    folders = [part for precision in ("fp32", "int8") for part in ("--bundle", bundles("tiny-flow", precision))]
    result = run(main, "--checkpoint", checkpoints("tiny-flow"), *folders, "--tokens", 5, "--count", 3, "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert list(report["step_s"]) == list(report["median_s"]) == ["PyTorch fp32", "janus-rt fp32", "janus-rt int8"]
    assert all(len(times) == 3 and np.median(times[1:]) == report["median_s"][name] for name, times in report["step_s"].items())
    assert report["largest_velocity_error"]["janus-rt fp32"] < FP32 < report["largest_velocity_error"]["janus-rt int8"] < INT8
    assert "| janus-rt int8 |" in flow(report)


def test_a_bundle_of_ids_is_refused(run, checkpoints, tiny):
    result = run(main, "--checkpoint", checkpoints("tiny-flow"), "--bundle", tiny)
    assert result.exit_code == 1 and "a bundle of JanusFlow is needed" in result.stderr


def test_arithmetic(bundles):
    """Counted in another way: product by product of one row, over the places that each sees."""
    manifest = Bundle.open(bundles("tiny-flow")).manifest
    width, layers, prompt, mlp_size = manifest.language_model.hidden_size, manifest.language_model.num_layers, 5, 160
    flops = 0
    for place in range(manifest.image_output.num_tokens + 1):
        seen = prompt + place + 1
        flops += layers * (2 * width * (3 * width + width + 2 * mlp_size + mlp_size) + 2 * 2 * width * seen)
    assert step_gflop(manifest, mlp_size, prompt) == 2 * flops / 1e9
