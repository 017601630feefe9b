"""Bundle -> TensorRT plans for this machine's GPU, under `plans/<gpu>-<library version>`. No torch.

A folder of plans is whole or absent: it is written aside and renamed, its key last.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from janus_runtime.bundle import Bundle, sha256
from janus_runtime.errors import BackendError, JanusError
from janus_runtime.manifest import WEIGHTS, Graph, Manifest
from janus_runtime.plans import FORMAT, KEY, PLANS, Plan, PlanSet, folder_name

from .trt_builder import Builder, Profile

Flavour = Literal["slice", "inplace"]

ROWS = (2, 8, 32)
LENGTHS = (320, 512, 704, 1216)
LEVEL = 3
# Prompts go in by pieces of at most this many tokens.
_PIECE = 128
# What a plan has beside the weights, of which a profile may hold a copy of its own.
_SPARE_SHARE = 1.1
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
) -> tuple[Path, PlanSet]:
    """Builds every graph's plan and returns the folder and its key. Plans for another GPU or version stay.

    `rows`, `lengths`: row counts and cache lengths that a step is built for. `flavour`: None takes inplace where the library
    can and the bundle is fp16, else slice. `compute_capability`, such as `8.9`, builds without a GPU, which TensorRT-RTX alone can.
    Raises BundleError, BackendError without TensorRT or a GPU, JanusError if a graph cannot be built, OSError.
    """
    bundle = Bundle.open(path.resolve())
    manifest = bundle.manifest
    if manifest.precision not in ("fp32", "fp16"):
        raise BackendError(
            f"{path} is {manifest.precision} as ONNX Runtime packs it, for which TensorRT has no form; "
            "export one for it with 'janus-export checkpoint SRC --out DIR --precision fp16'"
        )
    rows, lengths = _row_counts(rows, manifest), _cache_lengths(lengths, manifest)
    builder = Builder(library, compute_capability)
    flavour = _flavour(flavour, bundle, builder)
    sizes = {}
    if flavour == "inplace":
        # The cache that is written in place is of one length.
        lengths = lengths[-1:]
        sizes = {"max_length": lengths[0]}
    piece = min(_PIECE, lengths[0])
    graphs = {name: graph for name, graph in manifest.graphs.items() if name.split(".")[0] != _DECODER or name.endswith(f".{flavour}")}
    _check_space(bundle.path, graphs)

    folder = bundle.path / PLANS / folder_name(builder.gpu, builder.version)
    timings = bundle.path / PLANS / f"timings-{builder.version}-{builder.compute_capability}.cache"
    plans = {}
    with _aside(folder) as part:
        for index, (name, graph) in enumerate(graphs.items()):
            on_stage(f"building {name}", index / len(graphs))
            target = part / f"{name}.plan"
            profiles = profiles_of(name, rows, lengths, piece)
            needed = sizes if name.split(".")[0] == _DECODER else {}
            builder.build(bundle.path / graph.file, target, graph, profiles, needed, level, timings)
            plans[name] = Plan(target.name, target.stat().st_size, sha256(target), manifest.files[graph.file].sha256)
        key = PlanSet(
            format=FORMAT,
            library=library,
            version=builder.version,
            gpu=builder.gpu,
            compute_capability=builder.compute_capability,
            flavour=flavour,
            weights=manifest.precision,
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
    bundle.graph(f"{_DECODER}.{flavour}")
    return flavour


def _row_counts(rows: Sequence[int], manifest: Manifest) -> tuple[int, ...]:
    """In rising order, with 1 for answers."""
    found = tuple(sorted({*rows, *((1,) if "understanding" in manifest.tasks else ())}))
    if not rows or min(rows) < 1:
        raise JanusError(f"row counts {list(rows)}: expected numbers of 1 and more")
    if "generation" in manifest.tasks and not any(count % 2 == 0 for count in found):
        raise JanusError(f"row counts {list(rows)}: a picture takes two rows, so at least one count must be even")
    return found


def _cache_lengths(lengths: Sequence[int], manifest: Manifest) -> tuple[int, ...]:
    """In rising order, none longer than the model's own limit."""
    if not lengths or min(lengths) < 2:
        raise JanusError(f"cache lengths {list(lengths)}: expected numbers of 2 and more")
    return tuple(sorted({min(length, manifest.language_model.max_length) for length in lengths}))


def _check_space(folder: Path, graphs: dict[str, Graph]) -> None:
    free, needed = shutil.disk_usage(folder).free, _SPARE_SHARE * sum(graph.weight_bytes for graph in graphs.values())
    if free < needed:
        raise JanusError(f"the disk of {folder} has {free / 1e9:.1f} GB free, the plans need {needed / 1e9:.1f} GB; make room")


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` if all goes well and vanishes if not. One build at a time."""
    part, old = (folder.parent / f".{folder.name}.{suffix}" for suffix in ("part", "old"))
    part.mkdir(parents=True, exist_ok=True)
    lock = os.open(part, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JanusError(f"another build is writing {folder}; wait for it") from None
        try:
            for left in (old, *part.iterdir()):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            yield part
            if folder.exists():
                os.rename(folder, old)
            os.rename(part, folder)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise JanusError(f"the disk of {folder} is full and nothing of the plans was kept; make room and build again") from None
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        os.close(lock)
