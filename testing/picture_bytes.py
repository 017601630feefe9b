"""PNG and TIFF files byte by byte, with what Pillow does not write."""

import struct
import zlib

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def make_png(rows: bytes, width: int, height: int, bits: int = 8, colour: int = 2, before: bytes = b"", after: bytes = b"") -> bytes:
    """`rows` begin with their filter byte; `before` and `after` are chunks on either side of the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return PNG_SIGNATURE + header + before + png_chunk(b"IDAT", zlib.compress(rows, 1)) + after + png_chunk(b"IEND", b"")


def make_tiff(pixels: bytes, width: int, height: int, tags: dict[int, tuple[int, int, int]] | None = None) -> bytes:
    """Little-endian, one strip. `tags` (type, count, value or place) add to or replace those of 8-bit grey."""
    tags = {
        **{256: (3, 1, width), 257: (3, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)},
        **{273: (4, 1, 8), 277: (3, 1, 1), 278: (3, 1, height), 279: (4, 1, len(pixels))},
        **(tags or {}),
    }
    pixels += bytes(len(pixels) % 2)
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)
