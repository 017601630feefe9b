"""The parts of a picture's file that its pixels need, and its EXIF block.

Pillow reads everything in a file and refuses all of it because of one large or broken comment, colour profile or camera record.
So we hand it only what pixels need, and read the orientation ourselves: metadata never decides whether pixels are read.
"""

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

_ORIENTATION, _WIDTH, _HEIGHT = 274, 256, 257
# Sizes, compression, colour, where strips and tiles are, and the orientation, which Pillow applies to a TIFF by itself.
_TIFF_TAGS = frozenset(
    {254, *range(256, 260), 262, 266, 273, _ORIENTATION, 277, 278, 279, 284, 292, 293, 317, *range(320, 326), 332, 338, 339, 347}
    | {*range(512, 522), *range(529, 533), 50674}
)


class Parts(NamedTuple):
    """`pixels` is a whole file for Pillow. `complete` says whether the end of the original was there, None if we cannot know."""

    pixels: bytes
    exif: bytes = b""
    complete: bool | None = None


def split_png(data: bytes) -> Parts:
    """Keeps critical chunks, whose names begin with a capital. An animation becomes its first frame."""
    kept, exif, at, name = [data[:8]], b"", 8, b""
    while at + 8 <= len(data) and name != b"IEND":
        name, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if name[:1].isupper():
            kept.append(data[at:end])
        elif name == b"eXIf":
            exif = exif or data[at + 8 : end - 4]
        at = end
    return Parts(b"".join(kept), exif, name == b"IEND")


def split_jpeg(data: bytes) -> Parts:
    """Drops comments and application segments, except JFIF's and Adobe's, which say what the channels are."""
    kept, exif, at = [data[:2]], b"", 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : end]
        if marker == 0xFF:  # Padding.
            end = at + 1
        elif marker < 0xC0 or 0xD0 <= marker <= 0xDA:
            break  # The scan begins, or the header is damaged.
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            exif = exif or segment
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or _states_channels(marker, segment):
            kept.append(data[at:end])
        at = end
    return Parts(b"".join([*kept, data[at:]]), exif, b"\xff\xd9" in data[at:])


def _states_channels(marker: int, segment: bytes) -> bool:
    """Shorter ones are no JFIF and Adobe segments to the decoder either."""
    return (marker == 0xE0 and segment.startswith(b"JFIF\0") and len(segment) >= 14) or (
        marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12
    )


def split_webp(data: bytes) -> Parts:
    """Drops profile, EXIF and XMP, and the flags that announce them."""
    kept, exif, at, stated = [], b"", 12, 8 + int.from_bytes(data[4:8], "little")
    while at + 8 <= min(len(data), stated):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        if name == b"EXIF":
            exif = exif or data[at + 8 : end]
        elif name == b"VP8X":
            flags = bytes(byte & ~0x2C for byte in data[at + 8 : at + 9])
            kept.append(data[at : at + 8] + flags + data[at + 9 : end])
        elif name not in (b"ICCP", b"XMP "):
            kept.append(data[at:end])
        at = end
    body = b"WEBP" + b"".join(kept)
    return Parts(b"RIFF" + struct.pack("<I", len(body)) + body, exif, len(data) >= stated)


def split_tiff(data: bytes) -> Parts:
    """The same bytes with a new directory that lists the first picture's pixels only."""
    entries = [data[at : at + 12] for at, tag in _tiff_entries(data) if tag in _TIFF_TAGS]
    if not entries:  # A BigTIFF, whose directory is another, or a damaged file.
        return Parts(data)
    order = _byte_order(data)
    padded = data + bytes(len(data) % 2)
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return Parts(padded[:4] + struct.pack(order + "I", len(padded)) + padded[8:] + directory)


def split_avif(data: bytes) -> Parts:
    """Renames the Exif item, so that it is not read: an AVIF's orientation is a property of the picture, not in its EXIF."""
    return Parts(re.sub(rb"(infe.{8,10})Exif", rb"\1none", data, flags=re.DOTALL))


SPLITTERS: dict[str, Callable[[bytes], Parts]] = {
    "PNG": split_png,
    "JPEG": split_jpeg,
    "WEBP": split_webp,
    "TIFF": split_tiff,
    "AVIF": split_avif,
}


def read_orientation(exif: bytes) -> int:
    """EXIF's number, 1 to 8. 1, as stored, if the block is damaged or does not say."""
    value = _tiff_value(re.sub(rb"^(Exif\0\0)+", b"", exif), _ORIENTATION)
    return value if value is not None and 1 <= value <= 8 else 1


def declared_size(format: str, data: bytes) -> tuple[int, int] | None:
    """Width and height as the header states them; None where we cannot tell."""
    if format == "TIFF":
        width, height = _tiff_value(data, _WIDTH), _tiff_value(data, _HEIGHT)
        return None if width is None or height is None else (width, height)
    if format == "PPM":
        stated = re.match(rb"P\d\s+(\d+)\s+(\d+)\s", data)
        return (int(stated[1]), int(stated[2])) if stated else None
    if format == "JPEG":
        frame = re.search(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]..\x08(..)(..)", data, re.DOTALL)
        return (int.from_bytes(frame[2], "big"), int.from_bytes(frame[1], "big")) if frame else None
    places = {"PNG": (">II", 16), "GIF": ("<HH", 6), "BMP": ("<ii", 18)}
    if format not in places or len(data) < 26:
        return None
    width, height = struct.unpack_from(places[format][0], data, places[format][1])
    return width, height


def _byte_order(data: bytes) -> str:
    return "<" if data[:1] == b"I" else ">"


def _tiff_entries(data: bytes) -> list[tuple[int, int]]:
    """Place and tag of each entry of the first directory, as far as it is there."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0") or len(data) < 8:
        return []
    order = _byte_order(data)
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack(order + "H", data[start : start + 2].rjust(2, b"\0"))
    places = range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12)
    return [(at, struct.unpack_from(order + "H", data, at)[0]) for at in places]


def _tiff_value(data: bytes, wanted: int) -> int | None:
    """A tag's whole number in the first directory, or None."""
    for at, tag in _tiff_entries(data):
        if tag == wanted:
            (kind,) = struct.unpack_from(_byte_order(data) + "H", data, at + 2)
            size = {1: 1, 3: 2, 4: 4}.get(kind)
            byte_order = "little" if data[:1] == b"I" else "big"
            return int.from_bytes(data[at + 8 : at + 8 + size], byte_order) if size else None  # type: ignore[arg-type]
    return None
