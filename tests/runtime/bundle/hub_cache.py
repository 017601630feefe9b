"""A bundle as a hub's cache holds it."""

import shutil
from pathlib import Path


def make_hub_cache(bundle: Path, folder: Path) -> Path:
    """`snapshots/<commit>` holds links into `blobs`, where every file goes by its hash -> the bundle's folder of links."""
    snapshot, blobs = folder / "models--me--tiny" / "snapshots" / "abc" / "engines", folder / "models--me--tiny" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for index, path in enumerate(sorted(bundle.iterdir())):
        shutil.copy(path, blobs / str(index))
        (snapshot / path.name).symlink_to(f"../../../blobs/{index}")
    return snapshot
