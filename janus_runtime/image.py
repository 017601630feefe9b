"""Pictures in and out: PIL -> pixels for the encoders, decoder floats -> PIL. NumPy and Pillow only.

The way in is the original VLMImageProcessor bit for bit: floor of the scaled sides, Pillow bicubic,
paste on grey, 1/255 in fp64, normalise in fp32.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import ImageError, first_line
from .manifest import ImageInput

# A photo from a phone has 12 to 50 million pixels. More than this is a mistake or a decompression bomb.
# It lies below the number at which Pillow itself begins to warn.
MAX_PIXELS = 80_000_000
# 8-bit modes that Pillow converts to RGB without clipping values.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
# Plain raster formats: no interpreters (EPS), no videos.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")

Picture = str | Path | Image.Image


def as_pictures(images: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture or several -> a list."""
    return list(images) if isinstance(images, list | tuple) else [images]  # type: ignore[list-item]


def open_image(source: Picture) -> Image.Image:
    """A path or PIL image as a loaded RGB image. Of an animation file the first frame. Raises ImageError with the reason."""
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the image")
    if not isinstance(source, str | Path):
        raise ImageError(f"got a {type(source).__name__} for an image; expected a path or a PIL image")
    if not Path(source).exists():
        raise ImageError(f"no image at {source}")
    if not Path(source).is_file():
        raise ImageError(f"{source} cannot be used as an image: not a file")
    Image.init()
    built_in = [name for name in _FORMATS if name in Image.OPEN]  # Pillow may be built without some.
    try:
        with Image.open(source, formats=built_in) as image:
            return _to_rgb(image, str(source))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{source} cannot be used as an image: it is none of {', '.join(built_in)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{source} has more than {MAX_PIXELS:,} pixels; scale it down first") from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged data.
        raise ImageError(f"{source} cannot be read as an image: {first_line(error)}") from None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} has {width}x{height} pixels, more than {MAX_PIXELS:,}; scale it down first")
    if width * height == 0:
        raise ImageError(f"{name} is empty: {width}x{height} pixels")
    if image.mode not in _MODES:
        raise ImageError(f"{name} has mode {image.mode}; expected 8-bit colour or grey: convert it to RGB first")
    try:
        return image.convert("RGB")
    except Exception as error:  # A picture handed in may be closed, or not loaded yet and damaged.
        raise ImageError(f"{name} cannot be read as an image: {first_line(error)}") from None


def target_size(width: int, height: int, size: int, min_size: int) -> tuple[int, int]:
    """Width and height after scaling the longest side to `size`: floored, never below `min_size`."""
    longest = max(width, height)
    # This order of operations is the original's; another rounds to another row now and then.
    return max(int(width / longest * size), min_size), max(int(height / longest * size), min_size)


def resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Width first, then height, each rounded to 8 bits: what one call does up to Pillow 12. From 13 on its order depends on the shape."""
    return image.resize((size[0], image.height), resample).resize(size, resample)


def preprocess(image: Image.Image, spec: ImageInput) -> NDArray[np.float32]:
    """RGB image -> pixels [3, size, size], about -1 to 1."""
    resized = resize(image, target_size(*image.size, spec.size, spec.min_size), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (spec.size, spec.size), (spec.background[0], spec.background[1], spec.background[2]))
    square.paste(resized, ((spec.size - resized.width) // 2, (spec.size - resized.height) // 2))
    planes = np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
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
