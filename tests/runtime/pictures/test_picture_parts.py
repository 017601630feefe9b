"""Metadata never decides whether pixels are read: files with broken and large parts beside them."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from janus_runtime.pictures.image import open_image
from janus_runtime.pictures.picture_parts import declared_size, read_orientation, split_jpeg, split_png, split_webp
from testing.picture_bytes import make_png, make_tiff, png_chunk

WIDTH, HEIGHT = 12, 9
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS)
BEYOND, HUGE = 10**6, 2**31


def saved(format: str, picture: Image.Image | None = None, **options) -> bytes:
    file = io.BytesIO()
    (picture or Image.fromarray(PIXELS)).save(file, format, **options)
    return file.getvalue()


def opened(tmp_path, content: bytes) -> np.ndarray:
    (tmp_path / "picture").write_bytes(content)
    return np.asarray(open_image(tmp_path / "picture"))


def orientation_exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    value = struct.pack(order + {1: "Bxxx", 3: "HH", 4: "I"}[kind], *([orientation, 0] if kind == 3 else [orientation]))
    entry = struct.pack(order + "HHHI", 1, 274, kind, 1) + value
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + entry + bytes(4)


BESIDE_A_PNG = {
    "a profile of 1.3 MB": png_chunk(b"iCCP", b"display\0\0" + zlib.compress(bytes(1_300_000))),
    "a profile of unknown compression": png_chunk(b"iCCP", b"display\0\x01abc"),
    "a profile that ends early": png_chunk(b"iCCP", b"display"),
    "compressed text of 1.2 MB": png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(1_200_000))),
    "international text of 1.2 MB": png_chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(1_200_000))),
    "text of 70 MB": b"".join(png_chunk(b"tEXt", b"w%d\0" % index + bytes(7_000_000)) for index in range(10)),
    "a short pHYs": png_chunk(b"pHYs", b"\0\0"),
    "a short gAMA": png_chunk(b"gAMA", b"\0"),
    "a short cHRM": png_chunk(b"cHRM", b"\0"),
    "an empty sRGB": png_chunk(b"sRGB", b""),
    "a wrong tRNS": png_chunk(b"tRNS", b"\0"),
    "text with a wrong checksum": png_chunk(b"tEXt", b"a\0b")[:-1] + b"?",
    "a broken animation": png_chunk(b"acTL", b"\0") + png_chunk(b"fcTL", b"\0"),
    "damaged EXIF": png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "EXIF that is none": png_chunk(b"eXIf", b"orientation"),
    "a chunk that nobody knows": png_chunk(b"vpAg", bytes(9)),
}


@pytest.mark.parametrize("name", BESIDE_A_PNG)
@pytest.mark.parametrize("place", ["before", "after"])
def test_what_stands_in_a_png_beside_its_pixels(tmp_path, name, place):
    assert np.array_equal(opened(tmp_path, make_png(ROWS, WIDTH, HEIGHT, **{place: BESIDE_A_PNG[name]})), PIXELS)


def test_a_png_whose_end_lies_in_its_text(tmp_path):
    """Its pixels are all there."""
    content = make_png(ROWS, WIDTH, HEIGHT, after=png_chunk(b"tEXt", b"a\0" + bytes(1000)))
    assert np.array_equal(opened(tmp_path, content[:-600]), PIXELS)


@pytest.mark.parametrize("place", ["before", "after"])
def test_orientation_of_a_png_is_read_on_either_side_of_the_pixels(tmp_path, place):
    content = make_png(ROWS, WIDTH, HEIGHT, **{place: png_chunk(b"eXIf", orientation_exif(3))})
    assert np.array_equal(opened(tmp_path, content), PIXELS[::-1, ::-1])


def test_of_an_animated_png_the_first_frame(tmp_path):
    frames = [Image.fromarray(np.roll(PIXELS, step, 0)) for step in range(3)]
    assert np.array_equal(opened(tmp_path, saved("PNG", frames[0], save_all=True, append_images=frames[1:])), PIXELS)


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_an_interlaced_png_and_its_palette(tmp_path, mode):
    """Adam7 of one pixel is a single pass, so plain rows serve."""
    header = struct.pack(">IIBBBBB", 1, 1, *{"P": (8, 3), "L": (8, 0), "1": (1, 0)}[mode], 0, 0, 1)
    palette = png_chunk(b"PLTE", bytes([9, 8, 7, 30, 20, 10])) + png_chunk(b"tRNS", b"\0\0") if mode == "P" else b""
    chunks = png_chunk(b"IHDR", header) + palette + png_chunk(b"IDAT", zlib.compress(b"\0\x01" if mode != "1" else b"\0\x80"))
    expected = {"P": (30, 20, 10), "L": (1, 1, 1), "1": (255, 255, 255)}[mode]
    assert tuple(opened(tmp_path, b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b""))[0, 0]) == expected


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


IN_A_JPEG = {
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "a broken Photoshop block": segment(0xED, b"Photoshop 3.0\x008BIM\4\4"),
    "damaged EXIF": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "EXIF in many segments": segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 40,
    "profile pieces that are out of order": segment(0xE2, b"ICC_PROFILE\0"),
    "a broken multi-picture index": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
    "a multi-picture index of pictures that are not there": segment(
        0xE2, b"MPF\0II*\0\x08\0\0\0\2\0" + struct.pack("<HHIIHHII", 45057, 4, 1, 9, 45058, 7, 16, 38) + bytes(20)
    ),
    "comments of 5 MB": segment(0xFE, bytes(65_000)) * 80,
    "padding": b"\xff\xff\xff",
}


@pytest.mark.parametrize("name", IN_A_JPEG)
def test_what_stands_in_a_jpeg_beside_its_pixels(tmp_path, name):
    plain = saved("JPEG")
    assert np.array_equal(opened(tmp_path, plain[:2] + IN_A_JPEG[name] + plain[2:]), np.asarray(Image.open(io.BytesIO(plain))))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}])
def test_a_jpeg_keeps_its_channels(tmp_path, mode, options):
    plain = saved("JPEG", Image.fromarray(PIXELS).convert(mode), **options)
    assert np.array_equal(opened(tmp_path, plain), np.asarray(Image.open(io.BytesIO(plain)).convert("RGB")))


def test_a_jpeg_of_plain_rgb_says_so_in_its_adobe_segment(tmp_path):
    """Transform 0: the channels are no luma and chroma. Without JFIF's, which would say the contrary."""
    plain = saved("JPEG", subsampling=0)
    content = plain[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") + plain[20:]
    assert plain[2:4] == b"\xff\xe0"
    decoded = opened(tmp_path, content)
    assert np.array_equal(decoded, np.asarray(Image.open(io.BytesIO(content)))) and not np.array_equal(decoded, opened(tmp_path, plain))


def test_of_a_multi_picture_file_the_first(tmp_path):
    pictures = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    content = saved("MPO", pictures[0], save_all=True, append_images=pictures[1:])
    assert np.array_equal(opened(tmp_path, content), np.asarray(Image.open(io.BytesIO(content))))


def riff_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


IN_A_WEBP = {
    "damaged EXIF": riff_chunk(b"EXIF", b"II*\0\xff\xff\xff\xff"),
    "odd XMP": riff_chunk(b"XMP ", b"<x:xmpmeta>?!"),
    "a chunk that runs over the end": b"EXIF" + struct.pack("<I", 10_000) + b"II*\0",
    "a profile after the pixels": riff_chunk(b"ICCP", b"no profile"),
}


@pytest.mark.parametrize("name", IN_A_WEBP)
def test_what_stands_in_a_webp_beside_its_pixels(tmp_path, name):
    plain = saved("WEBP", lossless=True)
    flagged = riff_chunk(b"VP8X", struct.pack("<I", 0x2C) + (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little"))
    body = b"WEBP" + flagged + plain[12:] + IN_A_WEBP[name]
    length = len(body) + (10_000 if "runs over" in name else 0)
    assert np.array_equal(opened(tmp_path, b"RIFF" + struct.pack("<I", length) + body), PIXELS)


def test_of_an_animated_webp_the_first_frame(tmp_path):
    frames = [Image.fromarray(np.roll(PIXELS, step, 0)) for step in range(3)]
    content = saved("WEBP", frames[0], save_all=True, append_images=frames[1:], lossless=True, exif=b"Exif\0\0" + orientation_exif(3))
    assert np.array_equal(opened(tmp_path, content), PIXELS[::-1, ::-1])


IN_A_TIFF = {
    "EXIF beyond the end": {34665: (4, 1, BEYOND)},
    "EXIF that is none": {34665: (4, 1, 9)},
    "GPS beyond the end": {34853: (4, 1, BEYOND)},
    "a huge description": {270: (2, HUGE, 10)},
    "a huge profile": {34675: (7, HUGE, 10)},
    "a profile beyond the end": {34675: (7, 500, BEYOND)},
    "XMP that is a number": {700: (3, 1, 5)},
    "XMP beyond the end": {700: (1, 500, BEYOND)},
    "a Photoshop block beyond the end": {34377: (7, 500, BEYOND)},
    "a resolution beyond the end": {282: (5, 1, BEYOND), 283: (5, 1, BEYOND), 296: (3, 1, 2)},
    "a type that nobody knows": {50_000: (99, 1, 1)},
    "an orientation that is none": {274: (3, 1, 99)},
    "an orientation in letters": {274: (2, 1, 65)},
}


@pytest.mark.parametrize("name", IN_A_TIFF)
def test_what_stands_in_a_tiff_beside_its_pixels(tmp_path, name):
    grey = PIXELS[..., 0]
    assert np.array_equal(opened(tmp_path, make_tiff(grey.tobytes(), WIDTH, HEIGHT, IN_A_TIFF[name]))[..., 1], grey)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"])
def test_a_tiff_of_every_compression(tmp_path, compression):
    picture = Image.fromarray(PIXELS).convert("1" if compression == "group4" else "RGB")
    content = saved("TIFF", picture, compression=compression)
    assert np.array_equal(opened(tmp_path, content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_a_big_endian_tiff(tmp_path):
    content = saved("TIFF", Image.frombytes("I;16B", (2, 1), b"\x10\0\xff\0"))
    assert content.startswith(b"MM") and opened(tmp_path, content)[0, :, 0].tolist() == [0x10, 0xFF]


def test_of_a_tiff_the_first_page(tmp_path):
    pages = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    assert np.array_equal(opened(tmp_path, saved("TIFF", pages[0], save_all=True, append_images=pages[1:])), PIXELS)


def test_a_big_tiff(tmp_path):
    assert np.array_equal(opened(tmp_path, saved("TIFF", big_tiff=True)), PIXELS)


def test_comments_of_a_gif(tmp_path):
    plain = saved("GIF")
    start = plain.index(b"\x2c", 13 + 3 * 2 ** ((plain[10] & 7) + 1))  # The first picture's descriptor.
    block = b"\x21\xfe" + (b"\xff" + bytes(255)) * 4000 + b"\0"
    broken = b"\x21\xff\x01?\0"
    content = plain[:start] + block + broken + plain[start:]
    assert np.array_equal(opened(tmp_path, content), np.asarray(Image.open(io.BytesIO(plain)).convert("RGB")))


# Before 11.3 Pillow does not know the word.
@pytest.mark.skipif("AVIF" not in Image.registered_extensions().values() or not features.check("avif"), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("damage", [b"II*\0\xff\xff\xff\xff", b"no TIFF!"])
def test_exif_of_an_avif(tmp_path, damage):
    exif = Image.Exif()
    exif[274], exif[305] = 6, "some software"
    plain = saved("AVIF", exif=exif.tobytes())
    start = plain.index(b"\0\x2a\0\0\0\x08") - 2
    broken = plain[:start] + damage + plain[start + 8 :]
    assert opened(tmp_path, plain).shape == opened(tmp_path, broken).shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"])
@pytest.mark.parametrize(("order", "kind"), [("<", 3), (">", 3), ("<", 1), (">", 1), (">", 4), ("<", 4)])
def test_orientation_in_every_writing(orientation, prefix, order, kind):
    assert read_orientation(prefix + orientation_exif(orientation, order, kind)) == orientation


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_are_none(value):
    assert read_orientation(orientation_exif(value)) == 1


@given(st.binary(max_size=80))
def test_whatever_the_exif_the_orientation_is_one_of_eight(data):
    for head in (b"", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08\0\1\x01\x12"):
        assert 1 <= read_orientation(head + data) <= 8


@given(st.binary(max_size=60))
def test_splitting_and_sizes_take_any_bytes(data):
    split_png(b"\x89PNG\r\n\x1a\n" + data)
    split_jpeg(b"\xff\xd8\xff" + data)
    split_webp(b"RIFF" + data)
    for format, head in {
        "PNG": b"\x89PNG",
        "JPEG": b"\xff\xd8\xff",
        "GIF": b"GIF89a",
        "TIFF": b"II*\0",
        "PPM": b"P6 ",
        "BMP": b"BM",
    }.items():
        declared_size(format, head + data)
