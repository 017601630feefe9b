"""The bundles that a benchmark compares."""

from collections.abc import Sequence

from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.manifest import Manifest
from janus_runtime.errors import JanusError


def open_manifests(bundles: Sequence[str]) -> list[Manifest]:
    """Reports go by precision. Raises JanusError if two bundles are of one, BundleError if one is none."""
    manifests: list[Manifest] = []
    for bundle in bundles:
        manifest = Bundle.open(bundle).manifest
        if manifest.precision in [other.precision for other in manifests]:
            raise JanusError(f"two bundles are {manifest.precision}, and one would hide the other; give one of each precision")
        manifests.append(manifest)
    return manifests
