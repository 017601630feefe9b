"""What a drawn picture's PNG says of how it was drawn: text chunks that any program can read."""

import dataclasses

from PIL.PngImagePlugin import PngInfo

from .. import __version__
from ..bundle.manifest import Manifest
from ..console.output import printable
from ..drawing.request import GeneratedImage


def describe_maker(manifest: Manifest, backend: str) -> dict[str, str]:
    """Which program, model and backend draw."""
    # The name of a model may come from a folder's, which need not be UTF-8.
    named = {"software": f"janus-rt {__version__}", "model": manifest.name, "precision": manifest.precision, "backend": backend}
    return {key: printable(value) for key, value in named.items()}


def png_text(picture: GeneratedImage, maker: dict[str, str]) -> PngInfo:
    """The prompt, the seed, every setting that the picture has, and its maker."""
    info = PngInfo()
    for key, value in {"prompt": picture.prompt, "seed": picture.seed, **dataclasses.asdict(picture.settings), **maker}.items():
        if value is not None:
            info.add_itxt(key, str(value))
    return info
