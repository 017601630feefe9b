"""Opening pictures, and preprocessing against the original processor's steps, written out with Pillow and NumPy."""

import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from janus_runtime.bundle.manifest import ImageInput
from janus_runtime.errors import ImageError
from janus_runtime.pictures import image
from testing.picture_bytes import make_tiff
from tests.runtime.pictures import pixel_vectors

SPEC = ImageInput(384, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (127, 127, 127), 576, False)


def noise_image(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(picture: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def write(folder, content: bytes):
    (folder / "picture").write_bytes(content)
    return folder / "picture"


# 1200x799 and 799x1200 are where HF rounds to another row than the original floors to. The vectors hold tall pictures too.
@pytest.mark.parametrize("size", [(1200, 799), (799, 1200), (384, 384), (383, 385), (1000, 20), (500, 333), (17, 17)])
def test_preprocess_equals_the_original_bit_for_bit(size):
    picture = noise_image(*size)
    got = image.preprocess(picture, SPEC)
    assert got.dtype == np.float32 and got.flags.c_contiguous
    assert np.array_equal(got, pixel_vectors.preprocess_as_the_original(picture))


def test_every_pillow_gives_the_pixels_of_the_original(tmp_path):
    """300 sizes, modes, containers and orientations against hashes that the original's steps gave with Pillow 12."""
    expected = json.loads(pixel_vectors.PATH.read_text())["hashes"]
    wrong = []
    for made in pixel_vectors.make_pictures():
        opened = image.open_image(made.source if isinstance(made.source, Image.Image) else write(tmp_path, made.source))
        if not np.array_equal(np.asarray(opened), made.seen):
            wrong.append(f"{made.name}: opened")
        elif pixel_vectors.hash_pixels(image.preprocess(opened, SPEC)) != expected[made.name]:
            wrong.append(f"{made.name}: preprocessed")
    assert len(expected) == 300 and not wrong


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
        assert np.array_equal(image.preprocess(picture, SPEC), pixel_vectors.preprocess_as_the_original(Image.open(path).convert("RGB")))


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


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_colour_becomes_rgb(mode):
    assert image.open_image(Image.new(mode.upper(), (2, 2), "white").convert(mode)).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparency_is_dropped_without_a_word(mode):
    """Pillow would warn, and pytest makes errors of warnings."""
    picture = noise_image(6, 5).convert(mode)
    plain = image.open_image(picture)
    picture.info["transparency"] = {"P": bytes(range(256)), "L": 3, "RGB": (1, 2, 3)}[mode]
    assert image.open_image(picture).tobytes() == plain.tobytes() and "transparency" in picture.info


RAMP = np.linspace(20_000, 40_000, 48).astype(np.uint16).reshape(6, 8)


def scaled(picture) -> np.ndarray:
    pixels = np.asarray(image.open_image(picture))
    assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I"])
def test_16_bit_grey_is_scaled(mode):
    """To the byte that 16-bit colour of the same grey gives."""
    dtype = {"I": "<i4", "I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")
    if mode == "I;16N":
        picture = Image.fromarray(RAMP)
        picture._mode = mode  # Only some TIFF files give it.
    else:
        picture = Image.frombytes(mode, (8, 6), RAMP.astype(dtype).tobytes())
    assert np.array_equal(scaled(picture), RAMP >> 8)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_files_of_16_bit_grey_are_scaled(tmp_path, format):
    picture = Image.fromarray(RAMP.astype(np.int32) if format == "PPM" else RAMP)
    assert np.array_equal(scaled(write(tmp_path, saved(picture, format))), RAMP >> 8)


def test_a_nearly_black_pgm_is_16_bit(tmp_path):
    content = b"P5 2 1 65535\n" + np.array([200, 255], ">u2").tobytes()
    assert scaled(write(tmp_path, content)).tolist() == [[0, 0]]
    assert scaled(Image.open(io.BytesIO(content))).tolist() == [[0, 0]]


def test_a_tiff_of_12_bits_reaches_white(tmp_path):
    """Two pixels of 12 bits in three bytes."""
    assert scaled(write(tmp_path, make_tiff(b"\xff\xf8\x00", 2, 1, {258: (3, 1, 12)}))).tolist() == [[255, 128]]


@pytest.mark.parametrize(("bits", "pixels"), [(8, b"\0\x10\xff"), (16, b"\0\0\0\x10\0\xff")])
def test_a_tiff_whose_zero_is_white(tmp_path, bits, pixels):
    assert scaled(write(tmp_path, make_tiff(pixels, 3, 1, {258: (3, 1, bits), 262: (3, 1, 0)}))).tolist() == [[255, 239, 0]]


@pytest.mark.parametrize(("values", "reason"), [([-1, 5], "from -1 to 5"), ([0, 65536], "from 0 to 65536"), ([0, 255], "up to 255")])
def test_mode_i_that_is_not_16_bit_grey(values, reason):
    with pytest.raises(ImageError, match=f"the image has mode I with values {reason}"):
        image.open_image(Image.fromarray(np.array([values], np.int32)))


def test_a_black_picture_of_mode_i():
    assert not scaled(Image.new("I", (3, 2))).any()


@pytest.mark.parametrize("values", [np.array([[-1.5, 0.5, 2.5]], np.float32), np.array([[-70_000, 0, 70_000]], np.int32)])
def test_the_advice_on_grey_without_a_range_works(values):
    with pytest.raises(ImageError) as raised:
        image.open_image(Image.fromarray(values))
    assert "scale its values to 0 to 255 and hand over Image.fromarray(values.astype('uint8'))" in str(raised.value)
    values = (values - values.min()) / (values.max() - values.min()) * 255
    assert scaled(Image.fromarray(values.astype("uint8"))).tolist() == [[0, 127, 255]]


def test_the_advice_on_8_bit_grey_in_mode_i_works():
    picture = Image.fromarray(np.array([[0, 100, 255]], np.int32))
    with pytest.raises(ImageError, match="if they are 8-bit, convert it to L first"):
        image.open_image(picture)
    assert scaled(picture.convert("L")).tolist() == [[0, 100, 255]]


def test_the_advice_on_arrays_and_bytes_works():
    array = np.asarray(noise_image(5, 4))
    for wrong, right in ((array, Image.fromarray(array)), (data := saved(noise_image(5, 4), "PNG"), Image.open(io.BytesIO(data)))):
        with pytest.raises(ImageError, match=r"Image.fromarray\(array\) makes one of an array, Image.open\(io.BytesIO\(data\)\) of bytes"):
            image.open_image(wrong)
        assert image.open_image(right).tobytes() == array.tobytes()


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[pixel_vectors.ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "PIL"])
def test_orientation_is_applied_unless_asked_otherwise(tmp_path, format, orientation):
    stored = noise_image(7, 4)
    if format == "PIL":
        source = Image.open(io.BytesIO(saved(stored, "PNG", exif=exif_of(orientation))))
    else:
        lossless = {"lossless": True} if format == "WEBP" else {}
        source = write(tmp_path, saved(stored, format, exif=exif_of(orientation).tobytes(), **lossless))
    seen = pixel_vectors.TURNS[orientation](np.asarray(stored))
    assert np.array_equal(np.asarray(image.open_image(source)), seen)
    assert np.array_equal(np.asarray(image.open_image(source, exif_orientation=False)), np.asarray(stored))


def test_orientation_of_a_jpeg(tmp_path):
    stored = Image.new("RGB", (64, 32))
    stored.paste("white", (0, 0, 32, 32))
    path = write(tmp_path, saved(stored, "JPEG", exif=exif_of(6)))
    opened = image.open_image(path)
    assert opened.size == (32, 64) and opened.getpixel((16, 10)) > (200,) * 3 > opened.getpixel((16, 50))
    assert image.open_image(path, exif_orientation=False).size == (64, 32)


def test_a_tiff_is_turned_in_either_way(tmp_path):
    """By Pillow, so that the original turns it too."""
    stored = noise_image(7, 4)
    path = write(tmp_path, saved(stored, "TIFF", tiffinfo={pixel_vectors.ORIENTATION: 6}))
    seen = pixel_vectors.TURNS[6](np.asarray(stored))
    with Image.open(path) as handed_in:
        for source in (path, handed_in):
            assert all(np.array_equal(np.asarray(image.open_image(source, apply)), seen) for apply in (True, False))


def test_a_picture_is_turned_once():
    handed_in = noise_image(7, 4)
    handed_in.info["exif"] = exif_of(6).tobytes()
    once = image.open_image(handed_in)
    assert image.open_image(once).tobytes() == once.tobytes()
    as_stored = image.open_image(handed_in, exif_orientation=False)
    assert image.open_image(as_stored).tobytes() == handed_in.tobytes()
    assert "exif" in handed_in.info  # It stays the caller's.


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
    with pytest.raises(ImageError, match="page.eps is a PostScript page"):
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
    with pytest.raises(ImageError, match="half.png is a PNG that is cut off after 2,000 bytes"):
        image.open_image(path)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """The first is beyond our limit only, the second is one that Pillow warns about, the third one that it refuses."""
    path = tmp_path / "bomb.png"
    for size in ((9000, 9000), (12000, 9000), (20000, 10000)):
        Image.new("1", size).save(path)
        with pytest.raises(ImageError, match="80,000,000"):
            image.open_image(path)


def test_the_advice_on_too_many_pixels_works(tmp_path):
    path = write(tmp_path, saved(Image.new("1", (9000, 9000)), "PNG"))
    with Image.open(path) as picture:
        picture.thumbnail((1000, 1000))
        assert image.open_image(picture).size == (1000, 1000)


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
