"""Is a command faster than it was? Whole commands of this version and of an earlier one, each in a process of its own, in turn.

    git worktree add ../earlier COMMIT
    python -m bench.cpu.versions BUNDLE --earlier ../earlier BUNDLE_OF_THEN --image PHOTO --out bench/results/versions.json

`first word` is `describe` with one token, from the start of the interpreter to its end; `picture` draws one. Every system runs each
command once a round; of a command the run of median wall time is kept. Page caches are warm: a round before the first does not count.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from bench.cpu.commands import measure_in_turn
from bench.machine import where, write_report

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=_FOLDER)
@click.option("--earlier", type=(_FOLDER, _FOLDER), multiple=True, required=True, metavar="TREE BUNDLE", help="A work tree and its bundle.")
@click.option("--image", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A photo.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--only", type=click.Choice(["first word", "picture"]), help="One of the commands.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
def main(
    bundles: tuple[Path, ...], earlier: tuple[tuple[Path, Path], ...], image: Path, rounds: int, only: str | None, out: Path | None
) -> None:
    """Time the commands over BUNDLES, and those of earlier versions over theirs."""
    systems = [(bundle.name, _ROOT, bundle) for bundle in bundles]
    systems += [(f"earlier {bundle.name}", tree, bundle) for tree, bundle in earlier]
    folders = {name: tree for name, tree, _ in systems}
    if len(folders) < len(systems):
        raise click.UsageError(f"got {', '.join(name for name, _, _ in systems)}; give bundles of different names, or one hides the other")
    with TemporaryDirectory() as folder:
        words = {
            "first word": ["describe", str(image.resolve()), "--ask", "What is this?", "--max-tokens", "1"],
            "picture": ["generate", "a red fox in the snow", "-n", "1", "--out", folder],
        }
        # The folder that `-m` is run in comes first among those that packages are looked for in.
        program = [sys.executable, "-m", "janus_runtime.cli"]
        commands = {
            name: {stage: [*program, *words[stage], "--bundle", str(bundle.resolve()), "--json"] for stage in ([only] if only else words)}
            for name, _, bundle in systems
        }
        measure_in_turn(commands, 1, folders)
        found = measure_in_turn(commands, rounds, folders)
    report = {"question": "is a command faster than it was", **where(), "rounds": rounds, "results": found}
    for name, stages in found.items():
        for stage, row in stages.items():
            click.echo(
                f"{name:24} {stage:11} {row['wall_s']:6.2f} s  {row['peak_gb']:5.2f} GB  {row['runs_wall_s']}  {row['timings_ms'] or ''}"
            )
    if out:
        write_report(out, report)


if __name__ == "__main__":
    main()
