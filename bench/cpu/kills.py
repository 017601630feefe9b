"""Does a killed export ever leave half a bundle? Kills exports at random times and then lets one finish.

    python -m bench.cpu.kills CHECKPOINT --work build/kills --out bench/results/kills.json

SIGKILL, at a time drawn evenly over what a whole export takes. Before every other attempt a whole bundle stands in the way, to
be replaced: it must then be the old one or the new one, down to the last byte.
"""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from bench.machine import where, write_report
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.manifest import WEIGHTS
from janus_runtime.console.errors import report_errors
from janus_runtime.errors import JanusError


def start(checkpoint: str, out: Path, precision: str) -> subprocess.Popen:
    command = ["checkpoint", checkpoint, "--out", str(out), "--precision", precision, "--force", "--quiet"]
    return subprocess.Popen([sys.executable, "-m", "janus_export.cli", *command])


def check_whole(out: Path) -> None:
    """Raises BundleError if `out` is not a bundle, whole to the last byte."""
    for _ in Bundle.open(out).verify_hashes():
        pass


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False))
@click.option("--precision", default="int4", show_default=True)
@click.option("--kills", default=20, show_default=True, type=click.IntRange(1), help="Exports that finish before their time do not count.")
@click.option("--seed", default=0, show_default=True)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True, help="Left as it was.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--debug", is_flag=True)
def main(checkpoint: str, precision: str, kills: int, seed: int, work: Path, out: Path, debug: bool) -> None:
    """Kill exports of CHECKPOINT, and fail if one leaves anything but a whole bundle or none."""
    rng = random.Random(seed)
    work.mkdir(parents=True, exist_ok=True)
    with report_errors(debug), tempfile.TemporaryDirectory(dir=work) as folder:
        bundle, spare = Path(folder) / "bundle", Path(folder) / "spare"
        begin = time.perf_counter()
        if start(checkpoint, spare, precision).wait():
            raise JanusError("the export fails without being killed")
        whole_s = time.perf_counter() - begin
        rows = []
        while sum(not row["finished"] for row in rows) < kills:
            index = len(rows)
            if index % 2 and not bundle.exists():
                shutil.copytree(spare, bundle)
            if not index % 2:
                shutil.rmtree(bundle, ignore_errors=True)
            before = bundle.exists()
            process = start(checkpoint, bundle, precision)
            after_s = rng.uniform(0, whole_s)
            try:
                process.wait(after_s)
            except subprocess.TimeoutExpired:
                process.kill()
            if (code := process.wait()) not in (0, -signal.SIGKILL):
                raise JanusError(f"the export ended with {code} by itself, before it was killed")
            if bundle.exists():
                check_whole(bundle)
            # Between the two renames of a replacement the old bundle stands aside, whole, and the next export brings it back.
            aside = Path(folder) / ".bundle.old"
            if before and not bundle.exists():
                check_whole(aside)
            rows.append(
                {"killed_after_s": round(after_s, 2), "bundle_before": before, "bundle_after": bundle.exists(), "finished": code == 0}
            )
            click.echo(f"{after_s:7.2f} s  {'replacing' if before else 'new':10}{'whole' if bundle.exists() else 'none'}")
        if start(checkpoint, bundle, precision).wait():
            raise JanusError("the export after the kills fails")
        check_whole(bundle)
        left = sorted(path.name for path in Path(folder).iterdir())
        if left != ["bundle", "spare"]:
            raise JanusError(f"the export after the kills leaves {left}, expected the bundle alone")
        # The manifests name their own folder.
        ours, theirs = (Bundle.open(made).manifest.files[WEIGHTS] for made in (bundle, spare))
        same = ours == theirs
    write_report(out, {
        "question": "what exports that are killed leave", "checkpoint": Path(checkpoint).name, "precision": precision, **where(),
        "whole_export_s": round(whole_s, 1), "weights_after_equal": same, "kills": rows,
    })  # fmt: skip
    killed = sum(not row["finished"] for row in rows)
    click.echo(f"{killed} kills, no half bundle; the export after them is whole{'' if same else ' but differs'}")


if __name__ == "__main__":
    main()
