"""What lies on disk: the manifest, the files beside it, TensorRT plans."""

from .bundle import NANO, Bundle

__all__ = ["NANO", "Bundle"]
