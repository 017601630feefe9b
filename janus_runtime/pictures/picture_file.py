"""A picture's file: which format it is, what Pillow gets of it, and in words why it cannot be read."""

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import ImageError, first_line
from .picture_parts import SPLITTERS, Parts, declared_size

# How the files of each format begin. Plain raster formats: no interpreters (EPS), no videos.
_FORMATS = {
    "PNG": rb"\x89PNG",
    "JPEG": rb"\xff\xd8\xff",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM",
    "TIFF": rb"II(\*\0|\0\*|\+\0)|MM(\0\*|\*\0|\0\+)",
    "PPM": rb"P([1-6f]\s|0CMYK\s)",
    "AVIF": rb"....ftyp(....){0,12}?avi[fs]",
    "JPEG2000": rb"\0\0\0\x0cjP  |\xffO\xffQ",
    "ICO": rb"\0\0\x01\0",
}
# How files begin that people take for pictures: what they are, and what to do.
_OTHERS = {
    "a JPEG XL picture, which Pillow does not read; save it as PNG or JPEG": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "a HEIC photo, which Pillow does not read; save it as PNG or JPEG": rb"....ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)",
    "a video; save one of its frames as PNG or JPEG": rb"....(ftyp|moov|mdat)|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01\xba",
    "a PDF document; save the page as PNG or JPEG": rb"%PDF",
    "a PostScript page; save it as PNG or JPEG": rb"%!PS|\xc5\xd0\xd3\xc6",
    "a Photoshop document; save it as PNG or JPEG": rb"8BPS",
    "an SVG drawing; save it as PNG or JPEG": rb"(\xef\xbb\xbf)?\s*(<[?!][^<]*)*<svg\b",
    "a web page, not a picture; fetch the picture by its own address": rb"(?i)(\xef\xbb\xbf)?\s*(<!--((?!-->).)*-->\s*)*<(!doctype )?html",
    "a Git LFS pointer, not the picture; run 'git lfs pull' in its repository": rb"version https://git-lfs",
}


@dataclass(frozen=True)
class PictureFile:
    """`name` is what messages call it, a file's path; `format` is Pillow's name of it."""

    name: str
    num_bytes: int
    format: str
    parts: Parts


def read_picture_file(path: str | Path) -> PictureFile:
    """Reads a file whole if it begins like a picture. Raises ImageError that names the cause if it does not."""
    try:
        if not Path(path).exists():
            raise ImageError(f"no image at {path}")
        if not Path(path).is_file():
            raise ImageError(f"{path} cannot be used as an image: not a file")
        with open(path, "rb") as file:
            head = file.read(4096)
            _recognise(head, str(path))
            data = head + file.read()
    except (OSError, ValueError, MemoryError) as error:
        raise ImageError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or first_line(error)}") from None
    return parse_picture(data, str(path))


def parse_picture(data: bytes, name: str) -> PictureFile:
    """A whole file's bytes, which messages call `name`. Raises ImageError that names the cause if they are no picture's."""
    format = _recognise(data[:4096], name)
    Image.init()
    if format not in Image.OPEN:
        raise ImageError(
            f"{name} is {format}, which the installed Pillow does not read; "
            "upgrade it (pip install --upgrade pillow), or save the picture as PNG or JPEG"
        )
    split = SPLITTERS.get(format, Parts)
    return PictureFile(name, len(data), format, split(data))


def _recognise(head: bytes, name: str) -> str:
    """The format of a file that begins with `head`."""
    format = _begins(_FORMATS, head)
    if format is None:
        raise ImageError(f"{name} {_describe_other(head)}")
    return format


def _begins(table: dict[str, bytes], head: bytes) -> str | None:
    return next((name for name, beginning in table.items() if re.match(beginning, head, re.DOTALL)), None)


def _describe_other(head: bytes) -> str:
    if not head:
        return "is empty: 0 bytes"
    other = _begins(_OTHERS, head)
    return f"is {other}" if other else f"cannot be used as an image: it is none of {', '.join(_FORMATS)}"


def describe_damage(file: PictureFile, reason: str) -> str:
    """Why Pillow refused the pixels. `reason` is Pillow's own word on it, which may be empty."""
    size = declared_size(file.format, file.parts.pixels)
    if size is not None and 0 in size:
        return f"{file.name} is empty: a {file.format} of {size[0]}x{size[1]} pixels"
    if file.parts.complete is False:
        return f"{file.name} is a {file.format} that is cut off after {file.num_bytes:,} bytes; copy or download it again"
    how = "damaged" if file.parts.complete else "damaged or cut off"
    detail = f" ({reason})" if reason else ""
    return f"{file.name} cannot be read as an image: its {file.format} data is {how}{detail}; copy or download it again"
