"""Bundles of a published model's true shapes whose weights are made from a seed where they are needed, instead of carried.

    python -m testing.seeded_bundle pack --model janus-pro-1b --precision fp16 --out build/packed/1b-fp16
    python -m testing.seeded_bundle fill build/packed/1b-fp16

`pack` exports in full and then takes `weights.data` away; what is left is a few MB. `fill` makes it again from `seeded.json`, the
list of what lies where, and checks size and SHA-256. It needs NumPy alone, and gives the same bytes on every machine: numbers are
integers of PCG64, scaled by single products and sums, and never pass through a mathematical library whose last bit differs.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from janus_runtime.bundle.bundle import sha256
from janus_runtime.bundle.manifest import WEIGHTS, File, Manifest
from janus_runtime.console.errors import report_errors
from janus_runtime.errors import JanusError
from janus_runtime.whole_file import open_part, rename_over

if TYPE_CHECKING:
    from janus_export.checkpoint.sizes import JanusConfig

PLAN = "seeded.json"
_WORD = np.dtype("<u2")  # of random bits a number; a word of PCG64 holds four
_WORDS = 4
_ROWS = 1024  # of a source that are in memory at once


@dataclass(frozen=True)
class Seeded:
    """A checkpoint's tensor: evenly spread numbers of this mean and standard deviation, a function of seed and name."""

    seed: int
    name: str
    shape: tuple[int, ...]
    mean: float
    deviation: float

    def numbers(self, start: int, stop: int) -> NDArray[np.float32]:
        """The flat tensor's part [start:stop]."""
        source = np.random.PCG64([self.seed, zlib.crc32(self.name.encode())])
        skipped = start % _WORDS
        words = source.advance(start // _WORDS).random_raw(-(-(skipped + stop - start) // _WORDS))
        values = words.astype("<u8").view(_WORD)[skipped : skipped + stop - start].astype(np.float32)
        values -= np.float32(32767.5)
        values *= np.float32(self.deviation * 12**0.5 / 65535)
        values += np.float32(self.mean)
        return values


@dataclass(frozen=True)
class SeededTensor:
    """Rows [start:stop] of one, read as `janus_export.checkpoint.checkpoint.Tensor` is."""

    source: Seeded
    start: int
    stop: int
    dtype = np.dtype(np.float32)
    stride = None  # its rows lie one after the other

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stop - self.start, *self.source.shape[1:]

    def read(self) -> NDArray[np.float32]:
        row = int(np.prod(self.source.shape[1:]))
        return self.source.numbers(self.start * row, self.stop * row).reshape(self.shape)

    def rows(self, start: int, stop: int) -> "SeededTensor":
        return SeededTensor(self.source, self.start + start, self.start + stop)


def seeded_tensors(config: "JanusConfig", seed: int) -> dict[str, SeededTensor]:
    from testing.make_checkpoint import spread
    from testing.published_layouts import hf_tensors

    shapes = hf_tensors(config).items()
    return {name: SeededTensor(Seeded(seed, name, shape, *spread(name, shape, config)), 0, shape[0]) for name, shape in shapes}


def pack(model: str, precision: Any, out: Path, seed: int = 0) -> Manifest:
    """Exports the bundle `out` of a model of `testing.published_layouts`, less its weights. Raises what `export_bundle` does."""
    from janus_export.bundle import export_bundle
    from janus_export.checkpoint.checkpoint import Checkpoint
    from testing.published_layouts import MODELS, hf_config
    from testing.tiny_tokenizer import write_tokenizer

    config = MODELS[model]
    with TemporaryDirectory() as name, _planned(seed):
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(hf_config(config)))
        write_tokenizer(folder, config.text.vocab_size)
        tensors: Any = seeded_tensors(config, seed)
        manifest = export_bundle(Checkpoint(model, None, folder, config, tensors), out, precision)
    (out / WEIGHTS).unlink()
    return manifest


@contextmanager
def _planned(seed: int) -> Iterator[None]:
    """Exports write their weights as `fill` would, from a plan that they leave in the bundle, as one of its files."""
    from unittest import mock

    from janus_export.weights import WeightPlan

    class SeededPlan(WeightPlan):
        def write(self, path: Path, tensors: Mapping[str, Any], on_bytes: Callable[[int], None]) -> File:
            stored = [_stored(recipe, dtype, place.offset, tensors) for (recipe, dtype), place in self.places.items()]
            plan = {"seed": seed, "bytes": self.total_bytes, "tensors": stored}
            (path.parent / PLAN).write_text(json.dumps(plan) + "\n", encoding="utf-8")
            write_weights(path, plan)
            on_bytes(self.total_bytes)
            return File(self.total_bytes, sha256(path))

    with mock.patch("janus_export.bundle.WeightPlan", SeededPlan):
        yield


def _stored(recipe: Any, dtype: str, offset: int, tensors: Mapping[str, SeededTensor]) -> dict[str, Any]:
    """A recipe of `janus_export.recipes` as JSON."""
    from janus_export.recipes import FromCheckpoint, RopeTable

    place = {"offset": offset, "dtype": dtype}
    if isinstance(recipe, RopeTable):
        exponents = np.arange(0, recipe.head_size, 2) / recipe.head_size
        frequencies = np.float32(1) / np.power(np.float32(recipe.theta), exponents.astype(np.float32))
        return {**place, "function": recipe.function, "max_length": recipe.max_length, "frequencies": frequencies.tolist()}
    if not isinstance(recipe, FromCheckpoint):
        raise JanusError(f"got a {type(recipe).__name__} to store, expected matrices and tables as they are; pack in fp32 or fp16")
    sources = [asdict(tensors[name].source) for name, _ in recipe.sources]
    return {**place, "transposed": recipe.transposed, "sources": sources}


def write_weights(path: Path, plan: Mapping[str, Any], processes: int | None = None) -> None:
    """The file that `plan` describes, by several processes, one tensor in memory each."""
    with path.open("wb") as file:
        file.truncate(plan["bytes"])
    largest_first = sorted(plan["tensors"], key=_count, reverse=True)
    count = min(processes or os.cpu_count() or 1, len(largest_first))
    # Not forked: an export has threads of torch.
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        for _ in pool.map(partial(_write_tensor, path), largest_first):
            pass


def _write_tensor(path: Path, stored: Mapping[str, Any]) -> None:
    data = memoryview(make(stored)).cast("B")
    with path.open("r+b") as file:
        file.seek(stored["offset"])
        file.write(data)


def make(stored: Mapping[str, Any]) -> NDArray[Any]:
    """One tensor of the file, as it is stored."""
    dtype = np.dtype(stored["dtype"])
    if "function" in stored:
        angles = np.arange(stored["max_length"], dtype=np.float32)[:, None] * np.array(stored["frequencies"], np.float32)
        # In float64, whose last bit is lost: in float32 it depends on the processor.
        table: NDArray[Any] = getattr(np, stored["function"])(angles.astype(np.float64)).astype(np.float32).astype(dtype)
        return table
    sources = [Seeded(**{**source, "shape": tuple(source["shape"])}) for source in stored["sources"]]
    first = sum(source.shape[0] for source in sources)
    joined = (first, *sources[0].shape[1:])
    result = np.empty(joined[::-1] if stored["transposed"] else joined, dtype)
    target, done = result.T if stored["transposed"] else result, 0
    for source in sources:
        tensor = SeededTensor(source, 0, source.shape[0])
        for start in range(0, source.shape[0], _ROWS):
            rows = tensor.rows(start, min(start + _ROWS, source.shape[0])).read()
            target[done : done + len(rows)] = rows
            done += len(rows)
    return result


def _count(stored: Mapping[str, Any]) -> int:
    if "function" in stored:
        return int(stored["max_length"] * len(stored["frequencies"]))
    return sum(int(np.prod(source["shape"])) for source in stored["sources"])


def fill(folder: Path, processes: int | None = None) -> Path:
    """Makes `weights.data` of a packed bundle; the file appears when it is whole and right.

    Raises JanusError where this is no packed bundle or the numbers are not those of the export.
    """
    if not (folder / PLAN).is_file():
        raise JanusError(f"{folder} has no {PLAN}; expected a bundle made by 'python -m testing.seeded_bundle pack'")
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    expected = Manifest.load(folder).files[WEIGHTS]
    path = folder / WEIGHTS
    with open_part(path) as file:
        part = Path(file.name)
        write_weights(part, plan, processes)
        size, digest = part.stat().st_size, sha256(part)
        if (size, digest) != (expected.bytes, expected.sha256):
            raise JanusError(
                f"{path} came out with {size} bytes and sha256 {digest[:12]}…, expected {expected.bytes} and {expected.sha256[:12]}…; "
                "pack it again"
            )
        rename_over(file, path)
    return path


@click.group()
def main() -> None:
    """Bundles with random weights that travel without them."""


@main.command("pack")
@click.option("--model", required=True, help="A model of testing.published_layouts.")
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp16", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Room for the whole bundle is needed.")
@click.option("--debug", is_flag=True)
def _pack(model: str, precision: str, seed: int, out: Path, debug: bool) -> None:
    """Export MODEL's shape and keep all but its weights."""
    with report_errors(debug):
        manifest = pack(model, precision, out, seed)
        size = sum(path.stat().st_size for path in out.iterdir())
        click.echo(f"{out}: {size / 1e6:.1f} MB, to be filled with {manifest.files[WEIGHTS].bytes / 1e9:.2f} GB")


@main.command("fill")
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR...")
@click.option("--processes", type=click.IntRange(1), help="Default: one a core.")
@click.option("--debug", is_flag=True)
def _fill(folders: Sequence[Path], processes: int | None, debug: bool) -> None:
    """Make the weights of packed bundles."""
    with report_errors(debug):
        for folder in folders:
            path = fill(folder, processes)
            click.echo(f"{path}: {path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
