"""Pictures in and out: PIL -> pixels for the encoders, decoder floats -> PIL. NumPy and Pillow only.

The way in is the original VLMImageProcessor bit for bit: floor of the scaled sides, Pillow bicubic,
paste on grey, 1/255 in fp64, normalise in fp32.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..bundle.manifest import ImageInput
from ..errors import ImageError, first_line
from .picture_file import PictureFile, describe_damage, parse_picture, read_picture_file
from .picture_parts import read_orientation

# A photo from a phone has 12 to 50 million pixels. More than this is a mistake or a decompression bomb.
# It lies below the number at which Pillow itself begins to warn.
MAX_PIXELS = 80_000_000
# 8-bit modes that Pillow converts to RGB without clipping values, and those it converts in two steps.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_GREY16 = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
# What turns a picture as stored into one that stands upright, by EXIF's number.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# TIFF's tags.
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_TO_8_BIT = "scale its values to 0 to 255 and hand over Image.fromarray(values.astype('uint8'))"

Picture = str | Path | Image.Image


def as_pictures(images: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture or several -> a list."""
    return list(images) if isinstance(images, list | tuple) else [images]  # type: ignore[list-item]


def open_image(source: Picture, exif_orientation: bool = True) -> Image.Image:
    """A path or PIL image as an RGB image without metadata, the first frame of an animation. 16-bit grey is scaled to 8 bits.

    `exif_orientation` turns it upright as its EXIF says; without, it stays as stored, as in the original. Pillow itself turns a
    TIFF, in either case. Raises ImageError with the reason.
    """
    if isinstance(source, Image.Image):
        rgb, exif = _convert(source)
    elif isinstance(source, str | Path):
        rgb, exif = _decode(read_picture_file(source))
    else:
        raise ImageError(
            f"got a {type(source).__name__} for an image; expected a path or a PIL image: "
            "Image.fromarray(array) makes one of an array, Image.open(io.BytesIO(data)) of bytes"
        )
    return _turned(rgb, exif if exif_orientation else b"")


def decode_image(data: bytes, name: str) -> Image.Image:
    """A picture file's bytes as `open_image` gives a file, upright; `name` is what messages call it. Raises ImageError."""
    rgb, exif = _decode(parse_picture(data, name))
    return _turned(rgb, exif)


def _decode(file: PictureFile) -> tuple[Image.Image, bytes]:
    """RGB as stored, and the EXIF block."""
    try:
        with Image.open(io.BytesIO(file.parts.pixels), formats=[file.format]) as image:
            return _to_rgb(image, file.name), file.parts.exif or image.info.get("exif", b"")
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{file.name} has more than {MAX_PIXELS:,} pixels; scale it down first") from None
    except UnidentifiedImageError:
        raise ImageError(describe_damage(file, "")) from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged data.
        raise ImageError(describe_damage(file, first_line(error))) from None


def _turned(rgb: Image.Image, exif: bytes) -> Image.Image:
    """Upright, as EXIF says."""
    # Whoever opens the result again must not turn it again.
    rgb.info = {}
    turn = _TURNS.get(read_orientation(exif))
    return rgb if turn is None else rgb.transpose(turn)


def _convert(image: Image.Image) -> tuple[Image.Image, bytes]:
    try:
        return _to_rgb(image, "the image"), image.info.get("exif", b"")
    except ImageError:
        raise
    except Exception as error:  # It may be closed, or not loaded yet and damaged.
        raise ImageError(f"the image cannot be read as an image: {first_line(error)}") from None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Raises ImageError, and whatever Pillow raises where it loads the pixels."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} has {width}x{height} pixels, more than {MAX_PIXELS:,}; scale it down first")
    if width * height == 0:
        raise ImageError(f"{name} is empty: {width}x{height} pixels")
    if image.mode in _GREY16:
        return _scale_grey(image, name).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{name} has mode F, floats that do not say what is white; {_TO_8_BIT}")
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.mode not in _MODES:
        raise ImageError(f"{name} has mode {image.mode}; expected 8-bit colour, 8-bit grey or 16-bit grey: convert it to RGB first")
    if "transparency" in image.info:
        # Dropped, as the alpha channel is. Pillow would warn, or look for a colour that is not in the palette.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _scale_grey(image: Image.Image, name: str) -> Image.Image:
    """16-bit grey -> 8 bits: the high byte, as Pillow reads 16-bit colour."""
    values = np.asarray(image)
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # These two have no grey of more than 16 bits.
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise ImageError(f"{name} has mode I with values from {low} to {high}; expected 16-bit grey, 0 to 65535; {_TO_8_BIT}")
        if 0 < high < 256:
            raise ImageError(f"{name} has mode I with values up to {high}, black as 16-bit grey; if they are 8-bit, convert it to L first")
    tags = getattr(image, "tag_v2", {})
    scaled = (values >> (4 if tags.get(_BITS_PER_SAMPLE) == (12,) else 8)).astype(np.uint8)
    # Pillow inverts 8-bit grey whose zero is white, 16-bit grey it does not.
    return Image.fromarray(255 - scaled if tags.get(_PHOTOMETRIC) == 0 else scaled)


def target_size(width: int, height: int, size: int, min_size: int) -> tuple[int, int]:
    """Width and height after scaling the longest side to `size`: floored, never below `min_size`."""
    longest = max(width, height)
    # This order of operations is the original's; another rounds to another row now and then.
    return max(int(width / longest * size), min_size), max(int(height / longest * size), min_size)


def resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Width first, then height, each rounded to 8 bits: what one call does up to Pillow 12. From 13 on its order depends on the shape."""
    return image.resize((size[0], image.height), resample).resize(size, resample)


def fit(image: Image.Image, spec: ImageInput) -> Image.Image:
    """RGB image -> the square that the encoder sees, which fits as it is."""
    resized = resize(image, target_size(*image.size, spec.size, spec.min_size), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (spec.size, spec.size), (spec.background[0], spec.background[1], spec.background[2]))
    square.paste(resized, ((spec.size - resized.width) // 2, (spec.size - resized.height) // 2))
    return square


def preprocess(image: Image.Image, spec: ImageInput) -> NDArray[np.float32]:
    """RGB image -> pixels [3, size, size], about -1 to 1."""
    planes = np.ascontiguousarray(np.asarray(fit(image, spec)).transpose(2, 0, 1))
    scaled = (planes * np.float64(1 / 255)).astype(np.float32)
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    result: NDArray[np.float32] = (scaled - mean) / std
    return result


def postprocess(pixels: NDArray[np.float32]) -> Image.Image:
    """Decoder output [3, H, W] -> RGB image. The original stores floats into uint8: truncation, no rounding."""
    scaled = np.clip((pixels.transpose(1, 2, 0) + 1) / 2 * 255, 0, 255)
    return Image.fromarray(scaled.astype(np.uint8))


def grid(images: Sequence[Image.Image]) -> Image.Image:
    """Equal-sized images in rows of about as many columns as rows, on black with 2-pixel gaps."""
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * (width + 2) - 2, rows * (height + 2) - 2))
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * (width + 2), index // columns * (height + 2)))
    return sheet
