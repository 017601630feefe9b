"""Prepare here what a GPU machine without a network needs, and say in which calls to take it there.

    python -m bench.gpu.pack build/packed [--part DIR…]

OUT gets bundles (those of Janus-Pro's shapes without their weights, which are made there from a seed), and what travels with every
call: the CPU's record of a picture, and the one Python package that a set may lack. `--part` names the folders of a set of libraries, in
order. Printed is for each call what travels, how large that is, and what to run. At Janus-Pro's shapes an export takes minutes and room
for the whole bundle (7B: 15 GB), of which a few MB are kept.
"""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from bench.gpu.place import ALWAYS, RECORD, ROOT, run_module
from bench.gpu.sections import SECTIONS, Section
from janus_runtime.bundle.bundle import NANO
from janus_runtime.console.errors import report_errors
from janus_runtime.errors import JanusError

_MIB = 1 << 20
_LIMIT = 64 * _MIB
# Of a call, for its sections; a section usually takes a third of its limit.
_SECONDS, _USUAL = 200, 3
# Tracked files that nothing there needs: put them aside for the calls.
_LEFT_HERE = ("nano/nano-flow/",)
_PACKAGE = "filelock>=3.21"
_BUNDLES = {"nano-fp16": None, "1b-fp16": "janus-pro-1b", "7b-fp16": "janus-pro-7b"}


@dataclass
class Call:
    """What travels together, and which sections run then."""

    items: list[str] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)


def plan_calls(items: Sequence[tuple[str, int]], sections: dict[str, Section], room: int, seconds: float) -> list[Call]:
    """Items (name, bytes) in order, as many as fit in each call's `room`, and each section as soon as what it needs is there.

    Raises JanusError on an item that does not fit. Sections whose items are not among these are left out.
    """
    calls, used = [Call()], 0
    for name, size in items:
        if size > room:
            raise JanusError(f"{name} is {size / _MIB:.1f} MiB, and only {room / _MIB:.1f} MiB travel with the project; make smaller parts")
        if used + size > room:
            calls.append(Call())
            used = 0
        calls[-1].items.append(name)
        used += size
    carried = {name for name, _ in items}
    waiting = {name: section for name, section in sections.items() if _needs(section, carried) <= carried}
    there: set[str] = set()
    index = 0
    while waiting:
        if index == len(calls):
            calls.append(Call())
        there |= set(calls[index].items)
        left = seconds
        for name, section in list(waiting.items()):
            usual = section.limit_s / _USUAL
            if _needs(section, carried) <= there and (usual <= left or not calls[index].sections):
                calls[index].sections.append(name)
                left -= usual
                del waiting[name]
        index += 1
    return calls


def _needs(section: Section, carried: set[str]) -> set[str]:
    """Bundles, and all parts of a section's set; a set of which there is no part is missing."""
    parts = {name for name in carried if name.startswith(f"{section.set}.")} if section.set else set()
    return {*section.bundles, *(parts or ({f"{section.set}.00"} if section.set else set()))}


def travelling_bytes() -> int:
    """Of the project's tracked files, less those that are left here."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    files = [ROOT / name for name in listed if name and not name.startswith(_LEFT_HERE)]
    return sum(path.stat().st_size for path in files if path.is_file())


def make_bundles(out: Path, tiny: bool) -> None:
    """Those that are not in `out` yet."""
    for name, model in _BUNDLES.items():
        if (out / name / "manifest.json").is_file():
            continue
        click.echo(f"making {out / name}", err=True)
        if model is None or tiny:
            run_module(
                "janus_export.cli", "checkpoint", "nano/janus-nano", "--out", str(out / name), "--precision", "fp16", "--quiet", "--force"
            )
        else:
            run_module("testing.seeded_bundle", "pack", "--model", model, "--precision", "fp16", "--out", str(out / name))


def _set_of(part: str) -> str:
    """`ort.01` -> `ort`."""
    return part.rsplit(".", 1)[0]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--part", "parts", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Of a set, in order.")
@click.option("--tiny", is_flag=True, help="janus-nano in place of every model, to try this command.")
@click.option("--debug", is_flag=True)
def main(out: Path, parts: tuple[Path, ...], tiny: bool, debug: bool) -> None:
    """Fill OUT and print the calls."""
    with report_errors(debug):
        for part in parts:
            if not ((part / "part").is_file() and (part / "unpack.sh").is_file()):
                raise JanusError(f"{part} is no part of a set; expected a folder with part and unpack.sh")
        make_bundles(out, tiny)
        always = out / ALWAYS
        shutil.rmtree(always, ignore_errors=True)
        run_module("pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(always), _PACKAGE)
        run_module("bench.gpu.parity", "record", str(NANO), "--backend", "cpu", "--out", str(always / RECORD))
        # Bundles first: what needs no library beside them, or a small one, does not wait for the parts of a large one.
        paths = {name: out / name for name in _BUNDLES} | {part.name: part for part in parts}
        names = [part.name for part in parts]
        last = {_set_of(name): name for name in names}
        tracked = travelling_bytes()
        items = [(name, _size(path)) for name, path in paths.items()]
        for number, call in enumerate(plan_calls(items, SECTIONS, _LIMIT - tracked - _size(always), _SECONDS), 1):
            carried = [always, *(paths[name] for name in call.items)]
            size = tracked + sum(map(_size, carried))
            click.echo(f"call {number}: {size / _MIB:.1f} MiB of {_LIMIT // _MIB} with the project, less {', '.join(_LEFT_HERE)}")
            click.echo(f"  carry {' '.join(map(str, carried))}")
            for name in call.items:
                if name in names:
                    click.echo(f"  bash {paths[name]}/unpack.sh {paths[name]}/part")
                if name in last.values():
                    click.echo(f"  bash {paths[_set_of(name) + '.00']}/unpack.sh done {_set_of(name)}")
            if call.sections:
                usual = sum(SECTIONS[name].limit_s for name in call.sections) / _USUAL
                click.echo(f"  python3 -m bench.gpu.first --packed {out} --out $OUT {' '.join(call.sections)}  # about {usual:.0f} s")


if __name__ == "__main__":
    main()
