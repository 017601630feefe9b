"""Bundle -> TensorRT plans for this machine's GPU, under `plans/<gpu>-<library version>`. No torch."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from janus_runtime.bundle.bundle import Bundle, sha256
from janus_runtime.bundle.interface import GraphKind, graph_name
from janus_runtime.bundle.manifest import MAX_STEPS, WEIGHTS, Graph, Manifest
from janus_runtime.bundle.plans import FORMAT, KEY, PLANS, Plan, PlanSet, find_plans, folder_name
from janus_runtime.errors import BackendError, JanusError

from ..atomic_folder import aside
from .builder import Builder, Profile

Flavour = Literal["slice", "inplace"]

# One picture, or two answers. Each row count costs a profile for each length, and minutes.
ROWS = (2,)
# A prompt and its picture are about 600 tokens, a photo, its question and an answer about 1,000. With many rows most bytes of a step are
# the cache's, of which `slice` reads the whole length: shorter lengths before the last save a quarter of a picture at 32 rows.
_FEW_ROWS_LENGTHS, _MANY_ROWS_LENGTHS, _MANY_ROWS = (704, 1216), (320, 512, 704, 1216), 8
LEVEL = 3
# Prompts go in by chunks of at most this many tokens.
_CHUNK = 128
# Of JanusFlow: tokens of a usual prompt, and its usual number of steps.
_PROMPT, _FLOW_STEPS = 32, 30
# Kernels, of which a plan has some for each profile.
_SPARE_SHARE, _SPARE_BYTES = 1.1, 64 << 20

OnStage = Callable[[str, float], None]


def build_engines(
    path: Path,
    rows: Sequence[int] = ROWS,
    lengths: Sequence[int] | None = None,
    flavour: Flavour | None = None,
    level: int = LEVEL,
    on_stage: OnStage = lambda stage, share: None,
    library: str = "tensorrt",
    compute_capability: str | None = None,
    graphs: Sequence[str] | None = None,
) -> tuple[Path, PlanSet]:
    """Builds every graph's plan and returns the folder and its key. Plans for another GPU or version stay.

    `rows`, `lengths`: row counts and cache lengths that a step is built for; None takes those that suit the rows. `flavour`: None takes
    inplace where the library can and the bundle is fp16, else slice. `graphs`: names or kinds of those to build; plans of the others, built
    with the same sizes before, stay. `compute_capability`, such as `8.9`, builds without a GPU, which TensorRT-RTX alone can.
    Raises BundleError, BackendError without TensorRT or a GPU, JanusError if a graph cannot be built, OSError.
    """
    bundle = Bundle.open(path.resolve())
    manifest = bundle.manifest
    if manifest.precision not in ("fp32", "fp16"):
        raise BackendError(
            f"{path} is {manifest.precision} as ONNX Runtime packs it, for which TensorRT has no form; "
            "export one for it with 'janus-export checkpoint SRC --out DIR --precision fp16'"
        )
    rows = _row_counts(rows)
    lengths = _cache_lengths(lengths or (_MANY_ROWS_LENGTHS if rows[-1] >= _MANY_ROWS else _FEW_ROWS_LENGTHS), manifest)
    builder = Builder(library, compute_capability)
    flavour = _flavour(flavour, bundle, builder)
    sizes = {}
    if flavour == "inplace":
        # The cache that is written in place is of one length.
        lengths = lengths[-1:]
        sizes = {"max_length": lengths[0]}
    chunk = min(_CHUNK, lengths[0])
    # A GPU decodes a picture in a fraction of the time of a CPU, and needs no preview.
    built = {name: graph for name, graph in manifest.graphs.items() if graph.flavour in (None, flavour) and graph.kind != "image_preview"}
    chosen = _chosen(built, graphs)
    profiles = {name: profiles_of(graph.kind, rows, lengths, chunk) for name, graph in chosen.items()}
    _check_space(bundle.path, {name: graph.weight_bytes for name, graph in chosen.items()}, profiles)

    folder = bundle.path / PLANS / folder_name(builder.gpu, builder.version)
    timings = bundle.path / PLANS / f"timings-{builder.version}-{builder.compute_capability}.cache"
    key = PlanSet(
        format=FORMAT,
        library=library,
        version=builder.version,
        gpu=builder.gpu,
        compute_capability=builder.compute_capability,
        flavour=flavour,
        weights_sha256=manifest.files[WEIGHTS].sha256,
        rows=rows,
        lengths=lengths,
        chunk=chunk,
        plans={},
    )
    # A guess of each graph's share of the time: kernels are searched for each profile, longer where there are more weights.
    work = {name: len(profiles[name]) * (graph.weight_bytes + _SPARE_BYTES) for name, graph in chosen.items()}
    with aside(folder, "build") as part:
        plans = _kept_plans(bundle, folder, part, key) if graphs is not None else {}
        done, total = 0, sum(work.values())
        for name, graph in chosen.items():
            on_stage(f"building {name}", done / total)
            target = part / f"{name}.plan"
            target.unlink(missing_ok=True)
            needed = sizes if graph.kind == "language_model" else {}
            builder.build(bundle.path / graph.file, target, graph, profiles[name], needed, level, timings)
            plans[name] = Plan(target.name, target.stat().st_size, sha256(target), manifest.files[graph.file].sha256)
            done += work[name]
        key = replace(key, plans=plans)
        (part / KEY).write_text(key.to_json(), encoding="utf-8")
    return folder, key


def _chosen(graphs: Mapping[str, Graph], wanted: Sequence[str] | None) -> dict[str, Graph]:
    """Those of the names or kinds that are wanted. Raises JanusError on one that there is not."""
    if wanted is None:
        return dict(graphs)
    if unknown := [each for each in wanted if not any(each in (name, graph.kind) for name, graph in graphs.items())]:
        raise JanusError(f"no graph called {', '.join(unknown) or 'nothing'} to build a plan of; expected some of {', '.join(graphs)}")
    return {name: graph for name, graph in graphs.items() if name in wanted or graph.kind in wanted}


def _kept_plans(bundle: Bundle, folder: Path, part: Path, key: PlanSet) -> dict[str, Plan]:
    """Plans that were built before with the same sizes, linked into `part`. Raises JanusError if they were built with others."""
    if not (folder / KEY).is_file():
        return {}
    _, old = find_plans(bundle, key.library, key.version, key.gpu, key.compute_capability)
    if replace(old, plans={}) != key:
        was, asked = (f"{each.flavour}, rows {list(each.rows)}, lengths {list(each.lengths)}" for each in (old, key))
        raise JanusError(f"the plans in {folder} are {was}, these would be {asked}; give the same, or leave --graphs out to build all")
    for plan in old.plans.values():
        try:
            os.link(folder / plan.file, part / plan.file)
        except OSError:  # a file system without links
            shutil.copyfile(folder / plan.file, part / plan.file)
    return dict(old.plans)


def profiles_of(kind: GraphKind, rows: tuple[int, ...], lengths: tuple[int, ...], chunk: int) -> list[Profile]:
    """The optimization profiles of a graph: steps of fixed sizes first, then one for whatever else comes.

    TensorRT chooses kernels for a profile, so what runs once a token has one for each of its sizes.
    """
    most, longest = rows[-1], lengths[-1]
    any_rows = (1, min(2, most), most)
    if kind == "language_model":
        steps: list[Profile] = [
            {"rows": (count,) * 3, "tokens": (1, 1, 1), "outputs": (count,) * 3, "max_length": (length,) * 3}
            for count in rows
            for length in lengths
        ]
        some = (lengths[0], lengths[len(lengths) // 2], longest)
        return [*steps, {"rows": any_rows, "tokens": (1, min(64, chunk), chunk), "outputs": any_rows, "max_length": some}]
    if kind in ("text_head", "image_head", "text_draw"):
        steps = [{"rows": (count,) * 3} for count in rows]
        return [*steps, {"rows": any_rows}] if kind != "text_draw" else steps
    if kind == "flow_step":
        # The first step takes the prompt in, the others find it in the cache.
        pictures = (1, 1, max(most // 2, 1))
        later = {"images": pictures, "tokens": (1, 1, 1), "max_length": (1, _PROMPT, longest)}
        return [later, {"images": pictures, "tokens": (1, _PROMPT, longest), "max_length": (1, 1, 1)}]
    if kind == "time_embed":
        return [{"steps": (1, _FLOW_STEPS, MAX_STEPS)}]
    if kind in ("text_embed", "image_embed"):
        return [{"rows": any_rows, "tokens": (1, chunk, longest)}]
    return [{"images": (1, 1, 1)}]


def _flavour(asked: Flavour | None, bundle: Bundle, builder: Builder) -> Flavour:
    """The fastest that there is, unless one was asked for. Raises BackendError or BundleError if that cannot be."""
    fp32 = bundle.manifest.precision == "fp32"
    flavour = asked or ("inplace" if builder.features.in_place and not fp32 else "slice")
    if flavour == "inplace" and not builder.features.in_place:
        raise BackendError(f"{builder.library} {builder.version} writes no cache in place, which came with 10.15; give --flavour slice")
    if flavour == "inplace" and fp32:
        raise BackendError(f"TensorRT attends in place in fp16 alone and {bundle.path} is fp32; give --flavour slice")
    # A JanusFlow that only draws has its decoder elsewhere.
    if any(graph.kind == "language_model" for graph in bundle.manifest.graphs.values()):
        bundle.graph(graph_name("language_model", flavour))
    return flavour


def _row_counts(rows: Sequence[int]) -> tuple[int, ...]:
    """In rising order, and always 2: what one picture takes. An answer takes them too, since a profile of one row would double the plan."""
    if not rows or min(rows) < 1:
        raise JanusError(f"row counts {list(rows)}: expected numbers of 1 and more")
    return tuple(sorted({2, *rows}))


def _cache_lengths(lengths: Sequence[int], manifest: Manifest) -> tuple[int, ...]:
    """In rising order, none longer than the model's own limit."""
    if not lengths or min(lengths) < 2:
        raise JanusError(f"cache lengths {list(lengths)}: expected numbers of 2 and more")
    return tuple(sorted({min(length, manifest.language_model.max_length) for length in lengths}))


def _check_space(folder: Path, stored: Mapping[str, int], profiles: Mapping[str, list[Profile]]) -> None:
    """Room for every plan, whose weights are `stored` bytes. Raises JanusError."""
    plans = sum(size * _copies(profiles[name]) for name, size in stored.items())
    free, needed = shutil.disk_usage(folder).free, _SPARE_SHARE * plans + _SPARE_BYTES
    if free < needed:
        raise JanusError(f"the disk of {folder} has {free / 1e9:.1f} GB free, the plans need {needed / 1e9:.1f} GB; make room")


def _copies(profiles: list[Profile]) -> int:
    """How often a plan may hold the weights.

    A product of one row has kernels of its own, which want the matrix in another layout; all wider profiles share one. Seen with
    TensorRT-RTX 1.7: in fp16 2.0 times the weights where one row stands beside others, else 1.02.
    """
    alone = [all(size == (1, 1, 1) for letter, size in profile.items() if letter != "max_length") for profile in profiles]
    return 2 if any(alone) and not all(alone) else 1
