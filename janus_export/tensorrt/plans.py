"""Bundle -> TensorRT plans for this machine's GPU, under `plans/<gpu>-<library version>`. No torch."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from janus_runtime.bundle.bundle import Bundle, sha256
from janus_runtime.bundle.manifest import MAX_STEPS, WEIGHTS, Manifest
from janus_runtime.bundle.plans import FORMAT, KEY, PLANS, Plan, PlanSet, folder_name
from janus_runtime.errors import BackendError, JanusError
from janus_runtime.packages import importing

from ..atomic_folder import aside
from .builder import Builder, Profile, Weights

Flavour = Literal["slice", "inplace"]

ROWS = (2, 8, 32)
LENGTHS = (320, 512, 704, 1216)
LEVEL = 3
# Prompts go in by pieces of at most this many tokens.
_PIECE = 128
# Of JanusFlow: tokens of a usual prompt, and its usual number of steps.
_PROMPT, _FLOW_STEPS = 32, 30
# Kernels, of which a plan has some for each profile.
_SPARE_SHARE, _SPARE_BYTES = 1.1, 64 << 20
_DECODER = "language_model"
_BY_ROWS = ("text_head", "image_head", "text_draw", "image_draw")

OnStage = Callable[[str, float], None]


def build_engines(
    path: Path,
    rows: Sequence[int] = ROWS,
    lengths: Sequence[int] = LENGTHS,
    flavour: Flavour | None = None,
    level: int = LEVEL,
    on_stage: OnStage = lambda stage, share: None,
    library: str = "tensorrt",
    compute_capability: str | None = None,
    weights: Weights | None = None,
) -> tuple[Path, PlanSet]:
    """Builds every graph's plan and returns the folder and its key. Plans for another GPU or version stay.

    `rows`, `lengths`: row counts and cache lengths that a step is built for. `flavour`: None takes inplace where the library
    can and the bundle is fp16, else slice. `compute_capability`, such as `8.9`, builds without a GPU, which TensorRT-RTX alone can.
    `weights`: None takes the bundle's own; others are made of an fp16 bundle's, and their plans replace this GPU's that are there.
    Raises BundleError, BackendError without TensorRT or a GPU, JanusError if a graph cannot be built, OSError.
    """
    bundle = Bundle.open(path.resolve())
    manifest = bundle.manifest
    if manifest.precision not in ("fp32", "fp16"):
        raise BackendError(
            f"{path} is {manifest.precision} as ONNX Runtime packs it, for which TensorRT has no form; "
            "export one for it with 'janus-export checkpoint SRC --out DIR --precision fp16'"
        )
    if weights and manifest.precision != "fp16":
        raise BackendError(
            f"{path} is {manifest.precision}, expected an fp16 bundle for --weights {weights}; leave --weights out or "
            "export one with 'janus-export checkpoint SRC --out DIR --precision fp16'"
        )
    if weights in ("bf16", "int4") and "flow_step" in manifest.graphs:
        raise BackendError(f"{path} draws by a flow, whose step has no form of {weights} here; give --weights fp16")
    rows, lengths = _row_counts(rows), _cache_lengths(lengths, manifest)
    builder = Builder(library, compute_capability)
    if weights not in (None, "fp16", *builder.features.weights):
        raise BackendError(f"{library} {builder.version} has no {weights} weights, expected 10.0 or newer; give --weights fp16")
    flavour = _flavour(flavour, bundle, builder)
    sizes = {}
    if flavour == "inplace":
        # The cache that is written in place is of one length.
        lengths = lengths[-1:]
        sizes = {"max_length": lengths[0]}
    piece = min(_PIECE, lengths[0])
    graphs = {name: graph for name, graph in manifest.graphs.items() if name.split(".")[0] != _DECODER or name.endswith(f".{flavour}")}
    profiles = {name: profiles_of(name, rows, lengths, piece) for name in graphs}
    stored = {name: graph.weight_bytes for name, graph in graphs.items()}
    models = {}
    if weights in ("bf16", "int4"):
        # It needs onnx-ir, which an environment for plans of fp16 may lack.
        with importing("trt", f"--weights {weights}"):
            from . import weights as weights_module

        paths = {name: bundle.path / graph.file for name, graph in graphs.items()}
        models = {name: model for name, path in paths.items() if (model := weights_module.rewritten(name, path, weights))}
        stored |= {name: weights_module.bytes_of(model) for name, model in models.items()}
        graphs = {name: weights_module.interface(name, graph, weights) for name, graph in graphs.items()}
    _check_space(bundle.path, stored, profiles, rewritten=max((stored[name] for name in models), default=0))

    folder = bundle.path / PLANS / folder_name(builder.gpu, builder.version)
    timings = bundle.path / PLANS / f"timings-{builder.version}-{builder.compute_capability}.cache"
    plans = {}
    with aside(folder, "build") as part:
        for index, (name, graph) in enumerate(graphs.items()):
            on_stage(f"building {name}", index / len(graphs))
            target = part / f"{name}.plan"
            needed = sizes if name.split(".")[0] == _DECODER else {}
            onnx = bundle.path / graph.file
            with TemporaryDirectory(dir=part) as source:
                if name in models:
                    onnx = Path(source) / graph.file
                    weights_module.save(models.pop(name), onnx)
                builder.build(onnx, target, graph, profiles[name], needed, level, timings)
            plans[name] = Plan(target.name, target.stat().st_size, sha256(target), manifest.files[graph.file].sha256)
        key = PlanSet(
            format=FORMAT,
            library=library,
            version=builder.version,
            gpu=builder.gpu,
            compute_capability=builder.compute_capability,
            flavour=flavour,
            weights=weights or manifest.precision,
            weights_sha256=manifest.files[WEIGHTS].sha256,
            rows=rows,
            lengths=lengths,
            piece=piece,
            plans=plans,
        )
        (part / KEY).write_text(key.to_json(), encoding="utf-8")
    return folder, key


def profiles_of(name: str, rows: tuple[int, ...], lengths: tuple[int, ...], piece: int) -> list[Profile]:
    """The optimization profiles of a graph: steps of fixed sizes first, then one for whatever else comes.

    TensorRT chooses kernels for a profile, so what runs once a token has one for each of its sizes.
    """
    most, longest = rows[-1], lengths[-1]
    any_rows = (1, min(2, most), most)
    if name.split(".")[0] == _DECODER:
        steps = [{"rows": (count,) * 3, "tokens": (1, 1, 1), "max_length": (length,) * 3} for count in rows for length in lengths]
        some = (lengths[0], lengths[len(lengths) // 2], longest)
        return [*steps, {"rows": any_rows, "tokens": (1, min(64, piece), piece), "max_length": some}]
    if name == "image_draw":
        return [{"images": (count // 2,) * 3} for count in rows if count % 2 == 0]
    if name in _BY_ROWS:
        steps = [{"rows": (count,) * 3} for count in rows]
        return [*steps, {"rows": any_rows}] if name.endswith("_head") else steps
    if name == "flow_step":
        # The first step takes the prompt in, the others find it in the cache.
        pictures = (1, 1, max(most // 2, 1))
        later = {"images": pictures, "tokens": (1, 1, 1), "max_length": (1, _PROMPT, longest)}
        return [later, {"images": pictures, "tokens": (1, _PROMPT, longest), "max_length": (1, 1, 1)}]
    if name == "time_embed":
        return [{"steps": (1, _FLOW_STEPS, MAX_STEPS)}]
    if name in ("text_embed", "image_embed"):
        return [{"rows": any_rows, "tokens": (1, piece, longest)}]
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
    if any(name.split(".")[0] == _DECODER for name in bundle.manifest.graphs):
        bundle.graph(f"{_DECODER}.{flavour}")
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


def _check_space(folder: Path, stored: Mapping[str, int], profiles: Mapping[str, list[Profile]], rewritten: int) -> None:
    """Room for every plan, whose weights are `stored` bytes, and for one rewritten graph at a time. Raises JanusError."""
    plans = sum(size * _copies(profiles[name]) for name, size in stored.items())
    free, needed = shutil.disk_usage(folder).free, _SPARE_SHARE * plans + rewritten + _SPARE_BYTES
    if free < needed:
        raise JanusError(f"the disk of {folder} has {free / 1e9:.1f} GB free, the plans need {needed / 1e9:.1f} GB; make room")


def _copies(profiles: list[Profile]) -> int:
    """How often a plan may hold the weights.

    A product of one row has kernels of its own, which want the matrix in another layout; all wider profiles share one. Seen with
    TensorRT-RTX 1.7: in fp16 and bf16 2.0 times the weights where one row stands beside others, else 1.02; int4 is held once.
    """
    alone = [all(size == (1, 1, 1) for letter, size in profile.items() if letter != "max_length") for profile in profiles]
    return 2 if any(alone) and not all(alone) else 1
