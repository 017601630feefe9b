"""The first quarter of an hour on a GPU, in sections: what proves most for least comes first, and no section takes another with it.

    python -m bench.gpu.first --list
    python -m bench.gpu.first [--packed build/packed] [--out build/first] [SECTION…]
    python -m bench.gpu.first --stand-ins        # every line of it without a GPU, at tiny sizes

Each section runs in a process of its own with a limit. What it found is a line of JSON in OUT/first.jsonl as soon as it is there; what it
printed is in OUT/<section>.log. One that fails, hangs or lacks a library is marked and passed over. The last line printed is a summary.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import click

from bench.gpu.place import ALWAYS, ROOT, Place, Skipped
from bench.gpu.sections import SECTIONS, TEST_SECTIONS, run_section
from janus_runtime.console.output import print_json

_GRACE_S = 5.0


def run_all(names: list[str], place: Place, out: Path, factor: float) -> list[dict]:
    """Each section in its process -> its line, which is on file before the next begins."""
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in names:
        line = _run_one(name, place, out, factor)
        lines.append(line)
        with (out / "first.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        reason = f": {line['reason']}" if "reason" in line else ""
        click.echo(f"{name:14} {line['status']:8} {line['seconds']:6.1f} s{reason}")
    return lines


def _run_one(name: str, place: Place, out: Path, factor: float) -> dict:
    limit = (SECTIONS | TEST_SECTIONS)[name].limit_s * factor
    result, start = out / f"{name}.json", time.perf_counter()
    result.unlink(missing_ok=True)
    command = [*_python(name, place), "-m", "bench.gpu.first", "--inside", "--out", str(out), *place.options(), name]
    # Last, so that it only gives what is not there.
    packages = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(place.packed / ALWAYS))))
    with (out / f"{name}.log").open("w") as log:
        # A session of its own, so that what it started ends with it.
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": packages}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            _stop(process)
            return _line(name, "hung", start, reason=f"not done after {limit:.0f} s")
    if result.is_file():
        return _line(name, **{"start": start, **json.loads(result.read_text())})
    last = ((out / f"{name}.log").read_text().strip().splitlines() or ["said nothing"])[-1]
    return _line(name, "failed", start, reason=f"exit code {process.returncode}: {last[:200]}")


def _line(name: str, status: str, start: float, **rest: object) -> dict:
    return {"section": name, "status": status, "seconds": round(time.perf_counter() - start, 1), **rest}


def _stop(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _python(name: str, place: Place) -> list[str]:
    """The interpreter of a section: where its set was unpacked, the one that the set's file puts first, which may be the set's own."""
    script = place.sets / (SECTIONS | TEST_SECTIONS)[name].set / "env.sh"
    if place.stand_ins or not script.is_file():
        return [sys.executable]
    return ["bash", "-c", f'source "{script}" && exec python3 "$@"', "bash"]


def _inside(name: str, place: Place, out: Path) -> None:
    """One section, in this process: its result goes to a file, whatever it is."""
    try:
        found: dict = {"status": "ok", "result": run_section(name, place)}
    except Skipped as reason:
        found = {"status": "skipped", "reason": str(reason)}
    except Exception as error:
        traceback.print_exc()
        found = {"status": "failed", "reason": " ".join(f"{type(error).__name__}: {error}".split())[:400]}
    part = out / f"{name}.part"
    part.write_text(json.dumps(found))
    part.rename(out / f"{name}.json")


@click.command()
@click.argument("sections", nargs=-1)
@click.option("--stand-ins", is_flag=True, help="Run everything on a CPU, at tiny sizes, over stand-ins of the devices.")
@click.option("--packed", default="build/packed", show_default=True, type=click.Path(path_type=Path), help="What bench.gpu.pack made.")
@click.option(
    "--sets", default="/tmp/gpu", show_default=True, type=click.Path(path_type=Path), help="Where sets of libraries were unpacked."
)
@click.option(
    "--work", default="/tmp/gpu/work", show_default=True, type=click.Path(path_type=Path), help="For bundles that are made there."
)
@click.option("--out", default="build/first", show_default=True, type=click.Path(path_type=Path), help="For results and logs.")
@click.option("--factor", default=1.0, show_default=True, help="Longer or shorter limits.")
@click.option("--list", "listed", is_flag=True, help="Print the sections and their limits.")
@click.option("--inside", is_flag=True, hidden=True)
def main(
    sections: tuple[str, ...], stand_ins: bool, packed: Path, sets: Path, work: Path, out: Path, factor: float, listed: bool, inside: bool
) -> None:  # fmt: skip
    """Run SECTIONS, by default all."""
    known = SECTIONS | TEST_SECTIONS
    if unknown := [name for name in sections if name not in known]:
        raise click.UsageError(f"no section called {', '.join(unknown)}; expected some of {', '.join(SECTIONS)}")
    names, place = list(sections or SECTIONS), Place(stand_ins, packed.resolve(), sets.resolve(), work.resolve())
    if listed:
        for name in names:
            click.echo(f"{name:14} {known[name].limit_s:4} s  {known[name].question}")
        return
    if inside:
        _inside(names[0], place, out)
        return
    start = time.perf_counter()
    lines = run_all(names, place, out, factor)
    counts = {status: sum(line["status"] == status for line in lines) for status in ("ok", "skipped", "failed", "hung")}
    print_json({"sections": len(lines), **counts, "seconds": round(time.perf_counter() - start, 1), "out": str(out)})
    sys.exit(1 if counts["failed"] or counts["hung"] else 0)


if __name__ == "__main__":
    main()
