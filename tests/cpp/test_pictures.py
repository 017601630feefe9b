"""Pictures in: what the vision encoder gets of arrays and of files, to the bit."""

import io
import random
import re

import numpy as np
import pytest
from PIL import Image

from janus_runtime.errors import ImageError
from janus_runtime.pictures.image import decode_image, preprocess
from testing.c_library import CError, c_image
from tests.runtime.pictures.pixel_vectors import make_pictures

READ = ("PNG", "JPEG", "WEBP")


def test_300_sizes(nano):
    model, janus = nano
    rng = np.random.default_rng(4)
    spec = janus.manifest.image_input
    sizes = [(1, 1), (1, 1500), (1500, 1), (3, 901), (2000, 3), (384, 384), (200, 1999), (1999, 200)]
    sizes += [tuple(int(size) for size in rng.integers(1, 700, 2)) for _ in range(292)]
    for width, height in sizes:
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        assert np.array_equal(model.preprocess(c_image(pixels), spec.size), preprocess(Image.fromarray(pixels), spec)), (width, height)


def jpegs():
    """(name, bytes) of every mode, sampling and orientation."""
    rng = np.random.default_rng(6)
    for mode, channels in (("RGB", 3), ("L", 1), ("CMYK", 4), ("YCbCr", 3)):
        for quality, settings in ((50, {}), (95, {"progressive": True}), (100, {"subsampling": 0})):
            pixels = rng.integers(0, 256, (45, 71, channels), np.uint8).squeeze()
            exif = Image.Exif()
            exif[0x0112] = quality % 8 + 1
            file = io.BytesIO()
            image = Image.frombytes(mode, (71, 45), pixels.tobytes())
            image.save(
                file, "JPEG", quality=quality, exif=exif, **({} if mode in ("L", "CMYK") and "subsampling" in settings else settings)
            )
            yield f"JPEG {mode} {quality}", file.getvalue()


def files():
    for made in make_pictures():
        if isinstance(made.source, bytes) and made.name.split()[1] in READ:
            yield made.name, made.source
    yield from jpegs()


@pytest.fixture(scope="module")
def picture_files():
    return list(files())


@pytest.mark.parametrize("keep_orientation", [False, True])
def test_files_of_every_mode_and_orientation(library, picture_files, keep_orientation, tmp_path):
    from janus_runtime.pictures.image import open_image

    assert len(picture_files) > 100
    for index, (name, data) in enumerate(picture_files):
        path = tmp_path / str(index)
        path.write_bytes(data)
        expected = np.asarray(open_image(path, exif_orientation=not keep_orientation))
        assert np.array_equal(library.image(str(path), keep_orientation).pixels, expected), name
        if not keep_orientation:
            assert np.array_equal(library.decode_image(data).pixels, expected), name


@pytest.mark.parametrize("count", [600, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_as_python_refuses_them(library, picture_files, count):
    """Altered, cut and lengthened. Where Pillow is more lenient or strict than this reader, neither may be wrong about pixels."""
    rng, differ = random.Random(8), []
    for index in range(count):
        name, data = picture_files[rng.randrange(len(picture_files))]
        damaged = bytearray(data[: rng.randint(0, len(data))] if rng.random() < 0.5 else data)
        for _ in range(rng.choice([0, 1, 1, 3])):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        theirs = ours = None
        try:
            theirs = np.asarray(decode_image(bytes(damaged), "it"))
        except ImageError as error:
            reason = str(error)
        try:
            ours = library.decode_image(bytes(damaged), "it").pixels
        except CError as error:
            assert error.code == "image"
            if theirs is None and " (" not in reason:  # A reason in brackets is Pillow's own.
                assert str(error).partition(" (")[0] == reason or reason.split()[1:3] == str(error).split()[1:3], (name, index)
        if (ours is None) != (theirs is None) or (ours is not None and not np.array_equal(ours, theirs)):
            differ.append((name, index))
    assert len(differ) <= count // 50, differ


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM"])
def test_formats_that_only_python_reads(library, format):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, format)
    with pytest.raises(CError, match=f"{format}.*PNG, JPEG or WebP"):
        library.decode_image(file.getvalue(), "it")


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7", b"<svg></svg>", b"\0\0\0\x20ftypheic", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_said_in_the_same_words(library, data):
    with pytest.raises(ImageError) as theirs:
        decode_image(data, "it")
    with pytest.raises(CError) as ours:
        library.decode_image(data, "it")
    # What comes after names readers and formats, which differ.
    beginnings = [re.split(r", which|: it is none of| \(", str(error.value))[0] for error in (ours, theirs)]
    assert ours.value.code == "image" and beginnings[0] == beginnings[1]
