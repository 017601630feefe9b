"""janus-rt bench."""

from typing import TYPE_CHECKING

import click

from ..console.commands import Command, FiniteFloat, option
from ..console.output import say
from .options import open_model

if TYPE_CHECKING:
    from ..janus import Janus


@click.command(cls=Command, example="janus-rt bench --rows 8 --seconds 60")
@option("Benchmark", "--rows", type=click.IntRange(1), default=2, help="Rows of an image step: two for each picture.")
@option("Benchmark", "--seconds", type=FiniteFloat(0.1), default=30.0, help="Time to spend, all stages together.")
@open_model
def bench(janus: "Janus", as_json: bool, quiet: bool, rows: int, seconds: float) -> None:
    """Time a bundle stage by stage.

    On a CPU, beside the speed of its memory. On a GPU these steps copy through the host, which drawing does not.
    """
    from ..checks.latency import read_bandwidth
    from .results import print_result

    bandwidth = read_bandwidth() if janus.backend == "cpu" else None
    if not as_json:
        say(f"{'stage':20}{'p50':>10}{'p95':>10}{'runs':>7}" + (f"   of {bandwidth:.1f} GB/s read bandwidth" if bandwidth else ""))
    for timing in janus.time_stages(rows, seconds):
        if as_json:
            print_result(janus, stage=timing.stage, rows=rows, p50=timing.p50, p95=timing.p95, runs=timing.runs,
                         reads=timing.reads, gb_per_s=timing.gb_per_s, bandwidth_gb_per_s=bandwidth)  # fmt: skip
        else:
            share = f"   {timing.gb_per_s:.1f} GB/s, {timing.gb_per_s / bandwidth:.0%}" if timing.reads and bandwidth else ""
            say(f"{timing.stage:20}{timing.p50:7.1f} ms{timing.p95:7.1f} ms{timing.runs:7}{share}")
