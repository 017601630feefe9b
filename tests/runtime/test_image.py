"""Preprocessing against the original processor's steps, written out with Pillow and NumPy."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from janus_runtime import image
from janus_runtime.errors import ImageError
from janus_runtime.manifest import ImageInput

SPEC = ImageInput(384, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (127, 127, 127), 576, False)


def original(picture: Image.Image, size: int = 384, min_size: int = 14) -> np.ndarray:
    """VLMImageProcessor of the Janus repository, step by step."""
    width, height = picture.size
    longest = max(width, height)
    new_height = max(int(height / longest * size), min_size)
    new_width = max(int(width / longest * size), min_size)
    resized = picture.resize((new_width, new_height), Image.BICUBIC)
    side = max(resized.size)
    square = Image.new("RGB", (side, side), (127, 127, 127))
    square.paste(resized, ((side - new_width) // 2, (side - new_height) // 2))
    array = np.array(square).transpose(2, 0, 1)
    scaled = (array.astype(np.float64) * 0.00392156862745098).astype(np.float32)
    mean = np.array([0.5, 0.5, 0.5], np.float32).reshape(3, 1, 1)
    return (scaled - mean) / mean


def noise_image(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


# 1200x799 and 799x1200 are where HF rounds to another row than the original floors to.
@pytest.mark.parametrize("size", [(1200, 799), (799, 1200), (384, 384), (383, 385), (1000, 20), (500, 333), (17, 17)])
def test_preprocess_equals_the_original_bit_for_bit(size):
    picture = noise_image(*size)
    got = image.preprocess(picture, SPEC)
    assert got.dtype == np.float32 and got.flags.c_contiguous
    assert np.array_equal(got, original(picture))


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize(("size", "target"), [((30, 900), (20, 384)), ((30, 900), (30, 384)), ((30, 900), (20, 900)), ((9, 7), (18, 14))])
def test_resize_is_a_pass_over_the_width_and_then_one_over_the_height(size, target, resample):
    picture = noise_image(*size)
    got = image.resize(picture, target, resample)
    wide = picture.resize((target[0], size[1]), resample)
    assert got.size == target and got.tobytes() == wide.resize(target, resample).tobytes()


def test_the_published_pictures(shared_data):
    for path in sorted((shared_data / "images").glob("*.png")):
        picture = image.open_image(path)
        assert np.array_equal(image.preprocess(picture, SPEC), original(Image.open(path).convert("RGB")))


@given(st.integers(1, 20000), st.integers(1, 20000))
def test_target_size(width, height):
    new_width, new_height = image.target_size(width, height, 384, 14)
    assert max(new_width, new_height) == 384
    assert min(new_width, new_height) >= 14
    for side, new in ((width, new_width), (height, new_height)):
        exact = side * 384 / max(width, height)
        assert new == 14 or exact - 1 - 1e-9 <= new <= exact + 1e-9


def test_the_floor_is_the_originals_not_hfs():
    assert image.target_size(1200, 799, 384, 14) == (384, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_eight_bit_modes_become_rgb(mode):
    assert image.open_image(Image.new(mode, (5, 4))).mode == "RGB"


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_other_modes_are_refused(mode):
    with pytest.raises(ImageError, match=f"the image has mode {mode}; expected 8-bit"):
        image.open_image(Image.new(mode, (5, 4)))


def test_no_file(tmp_path):
    with pytest.raises(ImageError, match="no image at .*absent.png"):
        image.open_image(tmp_path / "absent.png")


def test_a_folder(tmp_path):
    with pytest.raises(ImageError, match="cannot be used as an image: not a file"):
        image.open_image(tmp_path)


@pytest.mark.parametrize("source", [None, b"bytes", np.zeros((4, 4, 3), np.uint8)])
def test_what_is_neither_path_nor_picture(source):
    with pytest.raises(ImageError, match="for an image; expected a path or a PIL image"):
        image.open_image(source)


def test_a_closed_picture(tmp_path):
    path = tmp_path / "a.png"
    noise_image(4, 4).save(path)
    with Image.open(path) as closed:
        pass
    with pytest.raises(ImageError, match="the image cannot be read as an image"):
        image.open_image(closed)


def test_formats_that_run_programs_are_not_opened(tmp_path):
    path = tmp_path / "page.eps"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n")
    with pytest.raises(ImageError, match="page.eps cannot be used as an image: it is none of PNG, JPEG"):
        image.open_image(path)


@given(st.data())
def test_damaged_files_are_read_or_refused_in_words(damaged, data):
    """Whichever bytes are flipped, nothing but ImageError comes out."""
    format = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]))
    content = bytearray(damaged[format])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = damaged["folder"] / "picture"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert image.open_image(path).mode == "RGB"
        except ImageError as error:
            assert "picture" in str(error) and "\n" not in str(error)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    made = {"folder": folder}
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        noise_image(12, 9).save(folder / format, format=format)
        made[format] = (folder / format).read_bytes()
    return made


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_common_formats(tmp_path, format):
    noise_image(20, 10).save(tmp_path / "picture", format=format)
    assert image.open_image(tmp_path / "picture").size == (20, 10)


def test_not_an_image(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no picture")
    with pytest.raises(ImageError, match="text.png cannot be used as an image"):
        image.open_image(path)


def test_a_truncated_image(tmp_path):
    path = tmp_path / "half.png"
    noise_image(64, 64).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match="half.png cannot be read as an image"):
        image.open_image(path)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """The first is beyond our limit only, the second is one that Pillow warns about, the third one that it refuses."""
    path = tmp_path / "bomb.png"
    for size in ((9000, 9000), (12000, 9000), (20000, 10000)):
        Image.new("1", size).save(path)
        with pytest.raises(ImageError, match="80,000,000"):
            image.open_image(path)


def test_postprocess_truncates_as_the_original_does():
    values = np.array([-2.0, -1.0, 0.0, 0.9999, 1.0, 3.0], np.float32)
    pixels = np.broadcast_to(values, (3, 1, 6)).copy()
    got = np.asarray(image.postprocess(pixels))[0, :, 0]
    expected = np.zeros(6, np.uint8)
    expected[:] = np.clip((values + 1) / 2 * 255, 0, 255)
    assert got.tolist() == expected.tolist() == [0, 0, 127, 254, 255, 255]


def test_grid_is_about_square():
    sheet = image.grid([Image.new("RGB", (10, 10), "red")] * 5)
    assert sheet.size == (34, 22)
    assert sheet.getpixel((33, 21)) == (0, 0, 0) and sheet.getpixel((9, 9)) == (255, 0, 0)
