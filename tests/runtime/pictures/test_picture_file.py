"""Each cause by its name, where a file cannot be read, and what to do."""

import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from janus_runtime.errors import ImageError
from janus_runtime.pictures.image import open_image
from testing.picture_bytes import make_png, make_tiff, png_chunk

PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def saved(format: str, **options) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, format, **options)
    return file.getvalue()


def refusal(tmp_path, content: bytes) -> str:
    """What follows the file's name."""
    path = tmp_path / "picture"
    path.write_bytes(content)
    with pytest.raises(ImageError) as raised:
        open_image(path)
    message = str(raised.value)
    assert message.startswith(f"{path} ") and "\n" not in message
    return message.removeprefix(f"{path} ")


def test_an_empty_file(tmp_path):
    assert refusal(tmp_path, b"") == "is empty: 0 bytes"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("end", [33, 200, -300])
def test_a_file_that_is_cut_off(tmp_path, format, end):
    content = saved(format)[:end]
    assert refusal(tmp_path, content) == f"is a {format} that is cut off after {len(content):,} bytes; copy or download it again"


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
@pytest.mark.parametrize("end", [20, 200])
def test_a_file_of_which_we_cannot_know_the_end(tmp_path, format, end):
    reason = refusal(tmp_path, saved(format)[:end])
    assert reason.startswith(f"cannot be read as an image: its {format} data is damaged or cut off")
    assert reason.endswith("; copy or download it again")


def test_a_damaged_file_that_is_all_there(tmp_path):
    content = make_png(b"\0\1\2\3", 1, 1)
    start = content.index(b"IDAT") + 4
    damaged = content[:start] + bytes(8) + content[start + 8 :]
    reason = refusal(tmp_path, damaged)
    assert reason.startswith("cannot be read as an image: its PNG data is damaged (") and "cut off" not in reason


def test_a_png_whose_header_has_a_wrong_checksum(tmp_path):
    content = bytearray(make_png(b"\0\1\2\3", 1, 1))
    content[30] ^= 1
    assert refusal(tmp_path, bytes(content)).startswith("cannot be read as an image: its PNG data is damaged")


def test_a_png_without_pixels(tmp_path):
    content = make_png(b"", 1, 1)
    start, end = content.index(b"IDAT") - 4, content.index(b"IEND") - 4
    assert "its PNG data is damaged" in refusal(tmp_path, content[:start] + png_chunk(b"tEXt", b"a\0b") + content[end:])


def jpeg_of_size(width: int, height: int) -> bytes:
    content = bytearray(saved("JPEG"))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (0, 0)])
def test_a_picture_without_width_or_height(tmp_path, width, height):
    bmp = bytearray(saved("BMP"))
    bmp[18:26] = struct.pack("<ii", width, height)
    for format, content in {
        "PNG": make_png(b"", width, height),
        "JPEG": jpeg_of_size(width, height),
        "GIF": b"GIF89a" + struct.pack("<HH", width, height) + bytes(20),
        "BMP": bytes(bmp),
        "TIFF": make_tiff(b"", width, height),
        "PPM": b"P6 %d %d 255 " % (width, height),
    }.items():
        assert refusal(tmp_path, content) == f"is empty: a {format} of {width}x{height} pixels"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\xff\x0a" + bytes(20), "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "a video"),
        (b"\0\0\0\x14ftypqt  ", "a video"),
        (b"\x1aE\xdf\xa3" + bytes(20), "a video"),
        (b"RIFF\0\0\1\0AVI LIST", "a video"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made by hand -->\n<!DOCTYPE svg PUBLIC ''>\n<svg/>", "an SVG drawing"),
    ],
)
def test_what_people_take_for_pictures(tmp_path, content, what):
    reason = refusal(tmp_path, content)
    assert reason.startswith(f"is {what}") and reason.endswith("as PNG or JPEG")


def test_the_advice_to_save_as_png_or_jpeg_works(tmp_path):
    for format in ("PNG", "JPEG"):
        (tmp_path / "picture").write_bytes(saved(format))
        assert open_image(tmp_path / "picture").size == PICTURE.size


def test_downloads_that_went_wrong(tmp_path):
    for page in (b"<!DOCTYPE html><title>Not found", b"\n <html lang='en'><svg/>", b"<!-- a -->\n<!-- b --><!doctype HTML>"):
        assert refusal(tmp_path, page) == "is a web page, not a picture; fetch the picture by its own address"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    assert refusal(tmp_path, pointer) == "is a Git LFS pointer, not the picture; run 'git lfs pull' in its repository"


def test_what_is_nothing_that_we_know(tmp_path):
    assert refusal(tmp_path, b"no picture") == (
        "cannot be used as an image: it is none of PNG, JPEG, WEBP, GIF, BMP, TIFF, PPM, AVIF, JPEG2000, ICO"
    )


@pytest.mark.parametrize("brands", [b"avif\0\0\0\0avifmif1miaf", b"mif1\0\0\0\0miafavif"])
def test_a_format_that_the_installed_pillow_lacks(tmp_path, monkeypatch, brands):
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    reason = refusal(tmp_path, b"\0\0\0\x20ftyp" + brands)
    assert reason.startswith("is AVIF, which the installed Pillow does not read; upgrade it (pip install --upgrade pillow), or save")


@pytest.mark.parametrize(("name", "reason"), [("x" * 5000, "cannot be opened: File name too long"), ("a\0b", "no image at|be opened")])
def test_names_that_no_file_can_have(tmp_path, name, reason):
    with pytest.raises(ImageError, match=reason):
        open_image(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="pipe cannot be used as an image: not a file"):
        open_image(tmp_path / "pipe")
