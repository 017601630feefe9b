"""A bundle on disk: opened, size-checked at once, hashed on request."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from ..paths import resolve_path
from .manifest import MANIFEST, Graph, Manifest

_BLOCK_BYTES = 1 << 22
_HERE = Path(__file__).parents[1]
# janus-nano, the model that ships with the package: a part of it when installed, in `engines` in a checkout.
NANO = _HERE / "janus_nano" if (_HERE / "janus_nano").is_dir() else _HERE.parent / "engines" / "janus-nano"


# Device, inode, size and time of change: a file that was replaced or written to has others.
_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Bundle:
    """`path` is absolute, so that a later change of the working directory changes nothing. `stamps` are of the files as opened."""

    path: Path
    manifest: Manifest
    stamps: dict[str, _Stamp]

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Reads the manifest and checks that every file is there and whole by size.

        Raises BundleError. Contents are hashed by `verify_hashes`: at load that would cost minutes at 7B.
        """
        if Path(path).is_file():
            raise BundleError(f"{path} is a file; give the bundle's folder")
        if not Path(path).is_dir():
            raise BundleError(f"no bundle at {path}; make one with 'janus-export checkpoint SRC --out {path}'")
        folder = resolve_path(path)
        stamps = {MANIFEST: _stamp(folder / MANIFEST)} if (folder / MANIFEST).is_file() else {}
        manifest = Manifest.load(folder)
        homes = _homes(folder)
        for name, file in manifest.files.items():
            target = folder / name
            if not any(target.resolve().is_relative_to(home) for home in homes):
                raise BundleError(f"{target} is a link out of the bundle; copy the file into the bundle")
            if not target.is_file():
                raise BundleError(f"{target} is missing; export the bundle again")
            if not os.access(target, os.R_OK):
                raise BundleError(f"{target} cannot be read: permission denied")
            stamps[name] = _stamp(target)
            size = stamps[name][2]
            if size != file.bytes:
                raise BundleError(f"{target} has {size} bytes, expected {file.bytes}: truncated or altered; export again")
        bundle = cls(folder, manifest, stamps)
        with bundle.unchanged():
            return bundle

    @contextmanager
    def unchanged(self, *names: str) -> Iterator[None]:
        """To open files inside of: raises BundleError at the end if they, or the manifest, are no longer those of `open`.

        Graphs are opened when first used. By then another export may have taken the folder's place.
        """
        try:
            yield
        finally:
            for name in (MANIFEST, *names):
                path = self.path / name
                if not path.is_file() or _stamp(path) != self.stamps[name]:
                    raise BundleError(f"{path} was replaced or altered while the bundle was open; load it again") from None

    def graph(self, name: str) -> Graph:
        """The graph called `name`; raises BundleError saying which there are."""
        try:
            return self.manifest.graphs[name]
        except KeyError:
            raise BundleError(
                f"{self.path} has no graph {name!r}: it holds {', '.join(self.manifest.graphs)}; export the bundle again"
            ) from None

    def verify_hashes(self) -> Iterator[str]:
        """Yields each file's name once its SHA-256 was found right; raises BundleError at the first that is not."""
        for name, file in self.manifest.files.items():
            with self.unchanged(name):
                got = sha256(self.path / name)
            if got != file.sha256:
                raise BundleError(f"{self.path / name} was altered: sha256 {got[:12]}…, expected {file.sha256[:12]}…; export again")
            yield name


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _homes(folder: Path) -> list[Path]:
    """The folders that a bundle's files may lie in: its own and, in a hub's cache, whose files are links, the one of all contents.

    The cache is `<repository>/snapshots/<commit>/…` beside `<repository>/blobs`.
    """
    return [folder, *(parent.parent / "blobs" for parent in folder.parents if parent.name == "snapshots")]


def sha256(path: Path) -> str:
    """Hex digest, read block by block so that memory does not follow the file's size."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
