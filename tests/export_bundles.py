"""Export the bundles that the runtime's tests take, for environments without the exporter.

    python -m tests.export_bundles DIR
    JANUS_TEST_BUNDLES=DIR python -m pytest tests/runtime

A bundle that lies in DIR already is made anew.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from testing.make_checkpoint import make_checkpoint
from tests.exported_bundles import shared_traces, traces_folder
from tests.given_bundles import bundle_name

BUNDLES = (
    *(("tiny", precision, None) for precision in ("fp32", "fp16", "int8", "int4")),
    ("small", "int4", None),
    *(("tiny", "fp32", only) for only in ("understanding", "generation")),
    *(("tiny-flow", precision, None) for precision in ("fp32", "int8")),
)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    with TemporaryDirectory() as work, shared_traces(traces_folder(Path(work))):
        models = {model for model, _, _ in BUNDLES}
        made = {model: make_checkpoint(model, Path(work) / model, dtype="fp32") for model in models}
        for model, precision, only in BUNDLES:
            out = folder / bundle_name(model, precision, only)
            export_bundle(open_checkpoint(str(made[model])), out, precision, only, force=True)
            click.echo(out)


if __name__ == "__main__":
    main()
