"""A drawn picture as its answer has it: scaled, as PNG, JPEG or WebP, in base64."""

import base64
import io
import re
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from ..drawing.request import GeneratedImage
from ..pictures.image import resize
from ..pictures.png_text import png_text
from .api_error import refuse

Format = Literal["png", "jpeg", "webp"]

MAX_SIZE = 1024


@dataclass(frozen=True)
class PictureOutput:
    """`size` is the side of the square; `compression` is OpenAI's: the quality of JPEG and WebP, 0 to 100."""

    size: int
    format: Format
    compression: int
    maker: dict[str, str]

    @property
    def stated_size(self) -> str:
        return f"{self.size}x{self.size}"

    def encode(self, image: Image.Image, picture: GeneratedImage | None = None) -> str:
        """Base64 of the file. A PNG of a `picture` that is done carries its settings, as those of `janus-rt generate` do."""
        if image.size != (self.size, self.size):
            image = resize(image, (self.size, self.size), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        if self.format == "png":
            image.save(file, "PNG", pnginfo=None if picture is None else png_text(picture, self.maker))
        else:
            image.save(file, self.format.upper(), quality=self.compression)
        return base64.b64encode(file.getbuffer()).decode("ascii")


def parse_size(size: str | None, native: int) -> int:
    """The side of the square that is asked for. Raises ApiError, which names what works."""
    if size is None or size == "auto":
        return native
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size, re.ASCII)
    if sides and sides[1] == sides[2] and (1 <= int(sides[1]) <= MAX_SIZE or int(sides[1]) == native):
        return int(sides[1])
    raise refuse(
        f"size is {size!r}; expected auto, {native}x{native} (what the model draws), or any square from 1x1 to {MAX_SIZE}x{MAX_SIZE}, "
        "to which pictures are scaled",
        "size",
    )
