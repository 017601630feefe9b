"""A bundle on disk: opened, size-checked at once, hashed on request."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import BundleError
from .manifest import Graph, Manifest

_BLOCK_BYTES = 1 << 22
_HERE = Path(__file__).parent
# janus-nano, the model that ships with the package: a part of it when installed, in `engines` in a checkout.
NANO = _HERE / "janus_nano" if (_HERE / "janus_nano").is_dir() else _HERE.parent / "engines" / "janus-nano"


@dataclass(frozen=True)
class Bundle:
    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Reads the manifest and checks that every file is there and whole by size.

        Raises BundleError. Contents are hashed by `verify_hashes`: at load that would cost minutes at 7B.
        """
        folder = Path(path)
        if folder.is_file():
            raise BundleError(f"{folder} is a file; give the bundle's folder")
        if not folder.is_dir():
            raise BundleError(f"no bundle at {folder}; make one with 'janus-export checkpoint SRC --out {folder}'")
        bundle = cls(folder, Manifest.load(folder))
        root = folder.resolve()
        for name, file in bundle.manifest.files.items():
            target = folder / name
            if not target.resolve().is_relative_to(root):
                raise BundleError(f"{target} is a link out of the bundle; copy the file into the bundle")
            if not target.is_file():
                raise BundleError(f"{target} is missing; export the bundle again")
            if not os.access(target, os.R_OK):
                raise BundleError(f"{target} cannot be read: permission denied")
            size = target.stat().st_size
            if size != file.bytes:
                raise BundleError(f"{target} has {size} bytes, expected {file.bytes}: truncated or altered; export again")
        return bundle

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
            if (got := sha256(self.path / name)) != file.sha256:
                raise BundleError(f"{self.path / name} was altered: sha256 {got[:12]}…, expected {file.sha256[:12]}…; export again")
            yield name


def sha256(path: Path) -> str:
    """Hex digest, read block by block so that memory does not follow the file's size."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
