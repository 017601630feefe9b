"""janus-rt info."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ..console.commands import Command
from ..console.output import print_json, say
from .options import open_model

if TYPE_CHECKING:
    from ..bundle.manifest import Manifest
    from ..janus import Janus


@click.command(cls=Command, example="janus-rt info --bundle engines/janus-pro-1b")
@open_model
def info(janus: "Janus", as_json: bool, quiet: bool) -> None:
    """Show what a bundle holds."""
    manifest = janus.manifest
    size = sum(file.bytes for file in manifest.files.values())
    if as_json:
        print_json({"bundle": str(janus.bundle_path), "bytes": size, "plans": janus.plans, **json.loads(manifest.to_json())})
        return
    model, vae = manifest.language_model, manifest.source.vae
    for label, value in (
        ("bundle", janus.bundle_path),
        ("model", f"{manifest.name} ({manifest.family}){', random weights' if manifest.random_weights else ''}"),
        ("source", f"{manifest.source.name}, {manifest.source.layout} layout, {manifest.source.dtype}{f', VAE {vae}' if vae else ''}"),
        ("precision", manifest.precision),
        ("tasks", ", ".join(manifest.tasks)),
        ("size", f"{size / 1e6:,.1f} MB in {len(manifest.files)} files"),
        ("decoder", f"{model.num_layers} layers, {model.hidden_size} wide, {model.max_length} tokens at most"),
        ("pictures", _drawn(manifest) if "generation" in manifest.tasks else "none"),
        ("graphs", ", ".join(manifest.graphs)),
        ("judged", "; ".join(_judged(manifest)) or "none"),
        ("plans", ", ".join(janus.plans) or "none"),
        ("built with", ", ".join(f"{name} {version}" for name, version in manifest.built_with.items())),
    ):
        say(f"{label:11}{value}")


def _judged(manifest: "Manifest") -> Iterator[str]:
    """What the exporter measured of graphs, such as `image_preview: psnr_db 38.1, levels 17.4, pictures 12`."""
    for name, graph in manifest.graphs.items():
        if graph.judged is not None:
            yield f"{name}: {', '.join(f'{figure} {number:g}' for figure, number in graph.judged.items())}"


def _drawn(manifest: "Manifest") -> str:
    picture, flow = manifest.image_output, manifest.flow
    size = f"{picture.size}x{picture.size}"
    if flow:
        latents = f"{flow.latent_size}x{flow.latent_size} latents of {flow.latent_channels} channels"
        return f"{size}, {latents}, {flow.solvers.euler.steps} steps, {flow.solvers.ab2.steps} with --solver ab2"
    return f"{size}, {picture.num_tokens} tokens of {picture.num_ids}"
