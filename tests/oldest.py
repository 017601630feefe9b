"""Run the runtime's tests in environments of their own: the oldest versions that pyproject.toml allows, and the newest there are.

    python -m tests.oldest BUNDLES

BUNDLES comes from `tests.export_bundles`. The environments lie in build/oldest; nothing of the exporter is installed there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same reader
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / "build" / "oldest"
RUNS = (("3.10", "oldest"), ("3.11", "oldest"), ("3.13", "newest"))
TESTS = ("tests/runtime", "tests/test_nano_bundle.py", "tests/test_nothing_leaves.py")


def requirements(python: str, versions: str) -> list[str]:
    """What to install on Python `python`: the runtime's requirements, each at its lower bound for "oldest", and what tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["cpu"])]
    tools = [each for each in map(Requirement, project["optional-dependencies"]["dev"]) if each.name in ("pytest", "hypothesis")]
    wanted = [each for each in runtime if not each.marker or each.marker.evaluate({"python_version": python})]
    pinned = [f"{each.name}=={lower_bound(each)}" if versions == "oldest" else f"{each.name}{each.specifier}" for each in wanted]
    return [*pinned, *(f"{each.name}{each.specifier}" for each in tools)]


def lower_bound(requirement: Requirement) -> str:
    (bound,) = [each.version for each in requirement.specifier if each.operator in (">=", "==")]
    return bound


def find_interpreter(python: str) -> str | None:
    """The first python3.N that starts: pyenv's shims stand on PATH for versions that they then refuse to run."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{python}"), *sorted(pyenv.glob(f"{python}.*/bin/python{python}"))]
    for candidate in filter(None, found):
        asked = subprocess.run([candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True)
        if asked.stdout.strip() == python:
            return str(candidate)
    return None


def make_environment(interpreter: str, python: str, versions: str) -> Path:
    """-> its Python. Made anew where the requirements are no longer those it was made from."""
    folder, wanted = ENVIRONMENTS / f"{python}-{versions}", requirements(python, versions)
    stamp = folder / "requirements.txt"
    executable = folder / "bin" / "python"
    # The newest are asked for in every run: yesterday's may not be today's.
    if not stamp.is_file() or stamp.read_text().split("\n") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
    install = [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--upgrade", "--upgrade-strategy", "eager", "--only-binary", ":all:", *wanted], check=True)
    subprocess.run([*install, "--no-deps", "--editable", ROOT], check=True)
    stamp.write_text("\n".join(wanted))
    return executable


def run_tests(executable: Path, bundles: Path) -> tuple[int, str]:
    """-> pytest's exit code and its last line."""
    environment = {**os.environ, "JANUS_TEST_BUNDLES": str(bundles)}
    command = [executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *TESTS]
    summary = ""
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as tests:
        for line in tests.stdout:
            click.echo(summary := line, nl=False)
    return tests.returncode, summary.strip()


@click.command()
@click.argument("bundles", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path))
@click.option("--skip-missing", is_flag=True, help="Go on without an interpreter that is not here.")
def main(bundles: Path, skip_missing: bool) -> None:
    interpreters = {python: find_interpreter(python) for python, _ in RUNS}
    missing = [python for python, path in interpreters.items() if path is None]
    if missing and not skip_missing:
        raise click.ClickException(
            f"no Python {', '.join(missing)} on PATH or under pyenv; install it, or run 'make test-oldest MISSING=skip'"
        )
    results = []
    for python, versions in RUNS:
        if path := interpreters[python]:
            code, summary = run_tests(make_environment(path, python, versions), bundles)
            results.append((code, f"Python {python}, {versions} versions: {summary}"))
        else:
            results.append((0, f"Python {python}, {versions} versions: not run, no interpreter"))
    click.echo("\n".join(line for _, line in results))
    sys.exit(max(code for code, _ in results))


if __name__ == "__main__":
    main()
