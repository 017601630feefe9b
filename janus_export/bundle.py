"""Assemble a bundle: graphs, weights, tokenizer, goldens, licence, manifest."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np

from janus_runtime import __version__
from janus_runtime.bundle.bundle import Bundle, sha256
from janus_runtime.bundle.interface import Sizes
from janus_runtime.bundle.manifest import (
    FORMAT,
    GOLDENS,
    MANIFEST,
    TOKENIZER,
    WEIGHTS,
    Defaults,
    File,
    Flow,
    Graph,
    ImageOutput,
    LanguageModel,
    Manifest,
    Precision,
    Schedule,
    Solvers,
    Source,
    Task,
    Tokens,
    sizes_of,
)
from janus_runtime.bundle.plans import PLANS
from janus_runtime.errors import JanusError
from janus_runtime.paths import printable, resolve_path

from .atomic_folder import MARK, aside
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.sizes import JanusConfig
from .checkpoint.text_side import read_image_input, read_text_side
from .errors import CheckpointError
from .goldens import make_goldens
from .graphs import graphs_for, matrices_by_column, recipes_of_all
from .modules.uvit import block_names
from .onnx.int8_cache import CacheScales
from .onnx.judge import ProductJudge
from .onnx.trace import check_graph, export_graph, torch_cache_in
from .precision import format_of
from .preview import PREVIEWED, calibrate_preview, export_preview
from .recipes import check_tensors
from .weights import WeightPlan

# Guidance 5 and temperature 1 are the published scripts' settings, 512 new tokens their limit for answers; of JanusFlow's
# drawing guidance 2 and 30 steps.
_DEFAULTS = Defaults(cfg_weight=5.0, temperature=1.0, max_tokens=512)
_FLOW_DEFAULTS = replace(_DEFAULTS, cfg_weight=2.0)
# Adams-Bashforth's are those that draw nano-flow as well as 30 of Euler's do: bench/results/flow-solvers.json.
_SOLVERS = Solvers(euler=Schedule(steps=30, shift=1.0), ab2=Schedule(steps=15, shift=2.0))
# For graphs, tokenizer and goldens, beside the weights whose size is known.
_SPARE_BYTES = 64 << 20

# Told of each stage by name, and of the share of it that is done where that is known.
OnStage = Callable[[str, float], None]
# Told what the user should know of the bundle.
OnNote = Callable[[str], None]


def export_bundle(
    checkpoint: Checkpoint,
    out: Path,
    precision: Precision,
    only: Task | None = None,
    force: bool = False,
    on_stage: OnStage = lambda stage, share: None,
    on_note: OnNote = lambda text: None,
) -> Manifest:
    """Writes the bundle `out`: check, trace, run the reference, write, describe.

    Raises CheckpointError if the checkpoint cannot be exported, JanusError or OSError if `out` cannot be written.
    """
    # Links are followed once, here: the folder that a link names is what is replaced.
    out = resolve_path(out)
    _check_target(out, checkpoint.folder, force)
    tasks: tuple[Task, ...] = (only,) if only else ("generation", "understanding")
    if checkpoint.config.flow and not checkpoint.vae and "generation" in tasks:
        raise CheckpointError(f"{checkpoint.name} was opened without its VAE, which drawing needs; open it with draws=True")
    check_tensors(recipes_of_all(checkpoint.config, checkpoint.vae is not None), checkpoint.tensors)
    vae = checkpoint.vae if "generation" in tasks else None
    tokenizer, tokens, template, family = read_text_side(checkpoint)
    text, vq, drawn, flow = checkpoint.config.text, checkpoint.config.vq, checkpoint.config.drawn, _flow(checkpoint.config)
    model = LanguageModel(
        hidden_size=text.hidden_size,
        num_layers=text.num_layers,
        num_heads=text.num_heads,
        head_size=text.head_size,
        vocab_size=text.vocab_size,
        max_length=text.max_length,
    )
    image_input = read_image_input(checkpoint)
    image_output = ImageOutput(
        size=drawn.image_size,
        grid=drawn.grid,
        num_tokens=drawn.grid**2,
        num_ids=vq.num_ids if vq else None,
    )
    sizes = sizes_of(model, image_input, image_output, flow)

    with aside(out, "export", lambda old: not _strangers(old), lambda: _check_target(out, checkpoint.folder, force)) as folder:
        with torch_cache_in(folder):
            graphs, weights = _write_graphs(checkpoint, sizes, precision, tasks, tokens, flow, folder, on_stage, on_note)
        tokenizer.save(str(folder / TOKENIZER), pretty=False)
        _copy_licences(checkpoint.folder, folder)
        if vae:
            _copy_licences(vae.folder, folder, "VAE-")
        others = sorted(path for path in folder.iterdir() if path.name not in (WEIGHTS, MARK))
        manifest = Manifest(
            format=FORMAT,
            name=out.name,
            family=family,
            precision=precision,
            random_weights=bool(checkpoint.json("config.json").get("random_weights", False)),
            tasks=tasks,
            source=Source(
                checkpoint.name,
                checkpoint.revision,
                checkpoint.config.layout,
                checkpoint.dtype,
                vae.name if vae else None,
            ),
            language_model=model,
            tokens=tokens,
            template=template,
            image_input=image_input,
            image_output=image_output,
            flow=flow,
            defaults=_FLOW_DEFAULTS if flow else _DEFAULTS,
            graphs=graphs,
            files={WEIGHTS: weights, **{path.name: File(path.stat().st_size, sha256(path)) for path in others}},
            # Without the local label: which build of torch traced makes no difference.
            built_with={
                "janus-export": __version__,
                **{name: version(name).split("+")[0] for name in ("torch", "onnx", "onnx-ir", "onnxscript")},
            },
        )
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        # What we write, the runtime must accept.
        Bundle.open(folder)
    return manifest


def _write_graphs(
    checkpoint: Checkpoint,
    sizes: Sizes,
    precision: Precision,
    tasks: tuple[Task, ...],
    tokens: Tokens,
    flow: Flow | None,
    folder: Path,
    on_stage: OnStage,
    on_note: OnNote,
) -> tuple[dict[str, Graph], File]:
    """The reference runs first, for the goldens, the scales of an int8 cache, and to judge which products bear one scale a column. Then
    every graph is traced, so that the place of every weight is known, and the weights are written front to back.
    """
    config, plan, cache = checkpoint.config, WeightPlan(), CacheScales(checkpoint.config.text)
    specs = graphs_for(config, tasks, precision)
    by_column = {spec.name: matrices_by_column(spec, config, precision) for spec in specs}
    judge = ProductJudge(chain.from_iterable(by_column.values()))
    on_stage("running the torch reference", 0)
    watch = cache.watch if format_of("language_model", precision, "gqa").int8_cache else None
    goldens = make_goldens(config, checkpoint.tensors, tasks, tokens, watch, judge.watch, flow)
    graphs: dict[str, Graph] = {}
    for spec in specs:
        if spec.flavour == "cpu" and not any(map(judge.takes, by_column[spec.name])):
            continue  # It would be the other form once more.
        on_stage(f"tracing {spec.name}", 0)
        graphs[spec.name] = export_graph(spec, config, sizes, precision, judge, cache, plan, folder)
    if "image_encoder" in graphs and precision in PREVIEWED:
        on_stage("calibrating the preview", 0)
        preview = calibrate_preview(config, checkpoint.tensors, lambda share: on_stage("calibrating the preview", share))
        if preview.refusal:
            on_note(preview.refusal)
        else:
            graphs["image_preview"] = export_preview(graphs["image_decoder"], config, preview, plan, folder)
            goldens |= preview.goldens
    np.savez_compressed(folder / GOLDENS, **goldens)  # type: ignore[arg-type]  # none is called allow_pickle
    free, needed = shutil.disk_usage(folder).free, plan.total_bytes + _SPARE_BYTES
    if free < needed:
        raise JanusError(f"the disk of {folder.parent} has {free / 1e9:.1f} GB free, the bundle needs {needed / 1e9:.1f} GB")
    weights = plan.write(folder / WEIGHTS, checkpoint.tensors, lambda done: on_stage("writing weights", done / plan.total_bytes))
    for graph in graphs.values():
        check_graph(folder / graph.file)
    return graphs, weights


def _flow(config: JanusConfig) -> Flow | None:
    if not config.flow:
        return None
    conditions = sum(2 * channels for _, channels in block_names(config.flow))
    return Flow(config.flow.vae.latent_channels, config.flow.latent_size, conditions, _SOLVERS)


def _copy_licences(source: Path, folder: Path, prefix: str = "") -> None:
    for licence in source.glob("LICENSE*"):
        if licence.is_file():
            # The manifest names it, in UTF-8.
            shutil.copyfile(licence, folder / (prefix + printable(licence.name)))


def _strangers(folder: Path) -> list[str]:
    """What lies in `folder` beside the files of a bundle; everything, if it is no bundle."""
    names = {path.name for path in folder.iterdir()}
    try:
        raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        ours = {Path(name).parts[0] for name in raw["files"]} if type(raw["format"]) is int else set()
    except (OSError, ValueError, LookupError, TypeError):
        return sorted(names)
    return sorted(names - ours - {MANIFEST, PLANS})


def _check_target(out: Path, source: Path, force: bool) -> None:
    """Only a bundle is ever replaced, and never the checkpoint. Raises JanusError."""
    if os.path.ismount(out):
        raise JanusError(f"{out} is a mount point, which cannot be replaced; give a folder inside it")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise JanusError(f"{out} exists; give --force to replace it, or another --out")
    if source.resolve().is_relative_to(out):
        raise JanusError(f"the checkpoint lies in {out}, which would be replaced; choose another --out")
    strangers = _strangers(out) if out.is_dir() else [out.name]
    if strangers:
        raise JanusError(f"{out} holds what is no part of a bundle ({', '.join(strangers[:5])}), so --force does not replace it")
