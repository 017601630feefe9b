"""README's table of a GPU says what its reports say."""

import click
import pytest

from bench import table

OURS = {
    "model": "janus-pro-1b", "rows": 2, "precision": "fp16", "system": "janus-rt tensorrt", "device": {"name": "NVIDIA H200"},
    "versions": {"tensorrt": "8.6.0", "numpy": "2.2.6"}, "copy_gb_per_s": 4000.0,
    "steps": {name: {"ms": ms, "reads": 2.4e9} for name, ms in (("early", 0.75), ("middle", 0.8), ("late", 1.0), ("all", 0.8))},
    "picture": {"first_ms": 500.4, "all_ms": 500.4, "images_per_s": 1.998},
}  # fmt: skip
ROW = {"prefill": 9.0, "decode": 10.0, "picture": 1200.0, "step early": 2.0, "step middle": 2.4, "step late": 3.0, "step all": 2.4}
THEIRS = {
    "model": "janus-pro-1b", "rows": 2, "precision": "bf16", "device": {"name": "NVIDIA H200"}, "versions": {"torch": "2.11.0"},
    "results": {"eager": ROW, "compiled": {"error": "RuntimeError: no"}},
}  # fmt: skip


def test_the_table():
    lines = table.gpu(OURS, THEIRS).splitlines()
    assert lines[0].startswith("NVIDIA H200, which copied 4000 GB/s; tensorrt 8.6.0, torch 2.11.0. Random weights.")
    assert lines[4:] == [
        "| janus-pro-1b, 2 | janus-rt tensorrt fp16 | 0.75 ms (80%) | 0.80 ms (75%) | 1.00 ms (60%) | 500 ms | 2.00 |",
        "| janus-pro-1b, 2 | transformers bf16, eager | 2.00 ms (30%) | 2.40 ms (25%) | 3.00 ms (20%) | 1200 ms | 0.83 |",
        "| janus-pro-1b, 2 | transformers bf16, compiled | did not run | | | | |",
    ]


def test_pictures_of_a_batch_are_decoded_one_by_one():
    many = {**THEIRS, "rows": 8, "results": {"eager": ROW}}
    assert table.gpu({**OURS, "rows": 8}, many).splitlines()[-1].endswith("| 1200 ms | 3.25 |")


def test_two_cards_make_no_table():
    with pytest.raises(click.ClickException, match="are of NVIDIA H100, NVIDIA H200; keep those of one"):
        table.gpu(OURS, {**THEIRS, "device": {"name": "NVIDIA H100"}})
