"""How long a cancelled drawing of JanusFlow keeps the machine, beside the time of one of its steps.

    python -m bench.cpu.cancelling BUNDLE --count 4 --out bench/results/cancelling.json

Each drawing is cancelled a third of a step after its second step, as a client does who goes away.
"""

import time
from pathlib import Path
from queue import SimpleQueue
from statistics import median

import click

import janus_runtime
from bench.machine import where, write_report
from janus_runtime.console.errors import report_errors
from janus_runtime.errors import JanusError
from janus_runtime.events import Failed, Progress
from testing.sessions import wait_until_idle


def cancel_within_a_step(janus: janus_runtime.Janus, pictures: int) -> tuple[float, float]:
    """-> seconds of a step, and from the cancel until nothing runs."""
    events: SimpleQueue = SimpleQueue()
    handle = janus.submit_drawing("a red circle", pictures, post=events.put, progress=True)
    times: list[float] = []
    while len(times) < 2:
        event = events.get()
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Progress):
            times.append(time.perf_counter())
    step = times[1] - times[0]
    time.sleep(step / 3)
    began = time.perf_counter()
    handle.cancel()
    wait_until_idle(janus)
    return step, time.perf_counter() - began


@click.command()
@click.argument("bundle")
@click.option("--count", default=4, show_default=True, type=click.IntRange(1), help="Drawings to cancel.")
@click.option("--pictures", default=1, show_default=True, type=click.IntRange(1), help="Of each drawing: many make a step long.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--debug", is_flag=True)
def main(bundle: str, count: int, pictures: int, out: Path | None, debug: bool) -> None:
    """Cancel drawings of BUNDLE, a JanusFlow, within a step."""
    with report_errors(debug), janus_runtime.load(bundle, "cpu") as janus:
        if janus.manifest.flow is None:
            raise JanusError("a bundle of JanusFlow is needed; export one with 'janus-export checkpoint SRC --out DIR'")
        janus.preload()
        steps, freed = zip(*(cancel_within_a_step(janus, pictures) for _ in range(count)), strict=True)
        report = {
            "question": "How long does a cancelled drawing keep the machine?",
            "model": janus.manifest.source.name,
            "precision": janus.manifest.precision,
            "random_weights": janus.manifest.random_weights,
            **where(),
            "pictures": pictures,
            "step_s": list(steps),
            "cancelled_s": list(freed),
        }
        click.echo(
            f"a step takes {median(steps):.3f} s; after a cancel the machine is free in {median(freed):.3f} s, {max(freed):.3f} at most"
        )
        if out:
            write_report(out, report)


if __name__ == "__main__":
    main()
