"""janus-rt verify."""

import math
from typing import TYPE_CHECKING

import click

from ..console.commands import Command
from ..console.output import say
from ..errors import JanusError
from .options import open_model

if TYPE_CHECKING:
    from ..janus import Janus


@click.command(cls=Command, example="janus-rt verify --bundle engines/janus-pro-1b --backend cuda")
@open_model
def verify(janus: "Janus", as_json: bool, quiet: bool) -> None:
    """Check every file's hash, then every graph against its golden."""
    from .results import print_result

    for name in janus.verify_hashes():
        if as_json:
            print_result(janus, file=name, passed=True)
        else:
            say(f"ok      {name}: hash")
    failed = []
    for check in janus.verify_goldens():
        if as_json:
            finite = check.difference if math.isfinite(check.difference) else None  # JSON has no infinity.
            print_result(janus, graph=check.graph, difference=finite, tolerance=check.tolerance, passed=check.passed)
        else:
            say(f"{'ok' if check.passed else 'FAILED':8}{check.graph}: differs by {check.difference:.1e}, {check.tolerance:.0e} allowed")
        if not check.passed:
            failed.append(check.graph)
    if failed:
        raise JanusError(f"{', '.join(failed)}: not what torch computes; export again, or report it with this output")
