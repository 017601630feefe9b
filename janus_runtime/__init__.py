"""Run DeepSeek Janus bundles without torch: draw pictures from text, answer questions about pictures."""

import os
from typing import TYPE_CHECKING

# ONNX Runtime reads this when it is imported: without it, it writes a device id under HOME and looks up its maker's host.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from .bundle.manifest import Manifest
    from .chat import Answer, Chat
    from .drawing.request import GeneratedImage
    from .janus import Janus, load

from .errors import BackendError, BundleError, Cancelled, ImageError, JanusError, NumericalError, PromptError

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "BackendError",
    "BundleError",
    "Cancelled",
    "Chat",
    "GeneratedImage",
    "ImageError",
    "Janus",
    "JanusError",
    "Manifest",
    "NumericalError",
    "PromptError",
    "load",
]

_HOMES = {
    "Answer": "chat",
    "Chat": "chat",
    "GeneratedImage": "drawing.request",
    "Janus": "janus",
    "Manifest": "bundle.manifest",
    "load": "janus",
}


if not TYPE_CHECKING:

    def __getattr__(name):
        """Imports on first use, so that `janus-rt --help` answers at once."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
