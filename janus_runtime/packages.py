"""The packages behind each extra: which are missing, and a command that installs them. Nothing is imported to find out.

The lists are those of this distribution's metadata. No index has janus-rt yet, so the commands name the packages themselves.
"""

import platform
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

from .errors import BackendError, JanusError, first_line

_DISTRIBUTION = "janus-rt"
_CHECKOUT = Path(__file__).resolve().parents[1]
_COMPARISON = re.compile(r"""(\w+) *(==|>=|<) *["']([^"']*)["']""")


def install_hint(extra: str, reinstall: bool = False) -> str:
    """A shell command that installs what `extra` stands for, such as `pip install torch==2.13.0 'ml-dtypes>=0.5'`.

    Where janus-rt itself is not installed, but run from a checkout, the command installs the checkout with the extra.
    """
    packages = _requirements(extra) or [f"{_CHECKOUT}[{extra}]"]
    return shlex.join(["pip", "install", *["--force-reinstall"] * reinstall, *packages])


@contextmanager
def importing(extra: str, who: str) -> Iterator[None]:
    """Wraps imports of the packages of `extra`, which `who` needs.

    Raises BackendError that names every package that is missing, or the reason why one that is there cannot be imported.
    """
    try:
        yield
    except JanusError:
        raise
    except ModuleNotFoundError as error:
        missing = _missing(extra) or [str(error.name)]
        raise BackendError(f"{who} needs packages that are not installed: {', '.join(missing)}; run {install_hint(extra)}") from error
    except Exception as error:  # a broken library raises whatever its first lines run into
        raise BackendError(
            f"{who} cannot import a package that is installed ({type(error).__name__}: {first_line(error)}); "
            f"repair it, or run {install_hint(extra, reinstall=True)}"
        ) from error


def _missing(extra: str) -> list[str]:
    names = [re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in _requirements(extra)]
    return [name for name in names if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _requirements(extra: str) -> list[str]:
    """What `extra` adds to a plain install on this machine; nothing where janus-rt is not installed."""
    try:
        stated = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    split = [requirement.partition(";") for requirement in stated]
    return [name.strip() for name, _, marker in split if "extra" in marker and _fits(marker, extra)]


def _fits(marker: str, extra: str) -> bool:
    """Whether an environment marker holds here. Ours are comparisons joined by `and`, with the four names below."""
    here = {
        "extra": extra,
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
    }
    return all(_compare(here[name], operator, value) for name, operator, value in _COMPARISON.findall(marker))


def _compare(left: str, operator: str, right: str) -> bool:
    if operator == "==":
        return left == right
    older = [int(part) for part in left.split(".")] < [int(part) for part in right.split(".")]
    return older is (operator == "<")
