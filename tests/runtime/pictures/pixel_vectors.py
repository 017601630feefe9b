"""300 made pictures, and the hash of what the vision encoder gets of each: the same with every Pillow.

`python -m tests.runtime.pictures.pixel_vectors` writes contract/pixels.json by the original's steps. It needs a Pillow before 13:
from there on one call of `resize` scales tall pictures height first.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image

from testing import CONTRACT
from testing.picture_bytes import make_png, png_chunk

PATH = CONTRACT / "pixels.json"
ORIENTATION = 274
# By EXIF's number: pixels as stored -> as seen.
TURNS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
# A kind is a container, or PIL for a picture handed in, and a mode.
KINDS = (
    *("PNG RGB", "PNG L", "PNG LA", "PNG RGBA", "PNG P", "PNG 1", "PNG I;16", "PNG RGB16", "TIFF RGB", "TIFF L", "TIFF I;16"),
    *("WEBP RGB", "PPM RGB", "PPM I", "BMP RGB", "GIF P", "PIL RGBA", "PIL PA", "PIL CMYK", "PIL I;16B"),
)
SIZES = (
    *((384, 384), (1, 1), (1, 1500), (1500, 1), (3, 900), (900, 3), (600, 399), (399, 600)),
    *((450, 330), (330, 450), (700, 90), (90, 700), (383, 385), (27, 19), (200, 401)),
)


class Made(NamedTuple):
    name: str
    seen: np.ndarray
    """[H, W, 3] as a person sees it."""
    source: bytes | Image.Image


def make_pictures() -> Iterator[Made]:
    for index in range(len(KINDS) * len(SIZES)):
        kind, (width, height) = KINDS[index // len(SIZES)], SIZES[index % len(SIZES)]
        container, mode = kind.split()
        # No two pictures have the same size; 15 sizes and 8 orientations meet in every way.
        width, height = width + index // len(SIZES), height + index // 4
        orientation = index % 8 + 1 if container in ("PNG", "TIFF", "WEBP", "PIL") else 1
        stored, image = _make(mode, width, height, _noise(f"{index}", width * height * 4))
        name = f"{index:03} {kind} {width}x{height} orientation {orientation}"
        yield Made(name, TURNS[orientation](stored), _pack(container, mode, image, orientation))


def _noise(name: str, count: int) -> np.ndarray:
    return np.frombuffer(hashlib.shake_128(name.encode()).digest(count), np.uint8)


def _make(mode: str, width: int, height: int, noise: np.ndarray) -> tuple[np.ndarray, Image.Image | bytes]:
    """RGB pixels [H, W, 3] as stored, and a PIL image of `mode` that holds them; of 16-bit RGB a PNG, which Pillow does not write."""
    channels = noise.reshape(height, width, 4)
    grey = np.repeat(channels[..., :1], 3, 2)
    sixteen = channels[..., 0].astype(np.uint16) << 8 | channels[..., 1]
    if mode in ("I", "I;16", "I;16B"):
        return grey, Image.fromarray({"I": sixteen.astype(np.int32), "I;16": sixteen, "I;16B": sixteen.astype(">u2")}[mode])
    if mode == "RGB16":
        return channels[..., :3], _png_rgb16(channels[..., :3])
    if mode in ("P", "PA"):
        palette = _noise("palette", 768)
        image = Image.frombytes("P", (width, height), channels[..., 0].tobytes())
        image.putpalette(palette.tobytes())
        return palette.reshape(256, 3)[channels[..., 0]], image.convert("PA") if mode == "PA" else image
    if mode == "1":
        return np.where(grey < 128, 0, 255).astype(np.uint8), Image.fromarray(channels[..., 0] >= 128)
    if mode == "CMYK":
        image = Image.frombytes("CMYK", (width, height), channels.tobytes())
        return np.asarray(image.convert("RGB")), image
    bands = {"L": (0,), "LA": (0, 3), "RGB": (0, 1, 2), "RGBA": (0, 1, 2, 3)}[mode]
    image = Image.frombytes(mode, (width, height), channels[..., bands].tobytes())
    return grey if mode in ("L", "LA") else channels[..., :3], image


def _pack(container: str, mode: str, image: Image.Image | bytes, orientation: int) -> bytes | Image.Image:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    if isinstance(image, bytes):
        # The header ends at byte 33.
        return image[:33] + png_chunk(b"eXIf", exif.tobytes()[6:]) + image[33:]
    if container == "PIL":
        image.info["exif"] = exif.tobytes()
        return image
    options = {
        "PNG": {"compress_level": 1, "exif": exif, **({"transparency": bytes(range(256))} if mode == "P" else {})},
        "TIFF": {"tiffinfo": {ORIENTATION: orientation}},
        "WEBP": {"lossless": True, "quality": 0, "method": 0, "exif": exif.tobytes()},
    }
    file = io.BytesIO()
    image.save(file, container, **options.get(container, {}))
    return file.getvalue()


def _png_rgb16(high: np.ndarray) -> bytes:
    height, width, _ = high.shape
    wide = np.stack([high, high[::-1]], 3).reshape(height, -1)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), wide], 1).tobytes()
    return make_png(rows, width, height, bits=16)


def preprocess_as_the_original(picture: Image.Image, size: int = 384, min_size: int = 14) -> np.ndarray:
    """VLMImageProcessor of the Janus repository, step by step: RGB -> [3, size, size]."""
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


def hash_pixels(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.astype("<f4").tobytes()).hexdigest()[:16]


def main() -> None:
    if int(PIL.__version__.split(".")[0]) >= 13:
        raise SystemExit(f"Pillow is {PIL.__version__}; expected one before 13, which scales width first: pip install 'pillow<13'")
    hashes = {made.name: hash_pixels(preprocess_as_the_original(Image.fromarray(made.seen))) for made in make_pictures()}
    about = "First 16 digits of the SHA-256 of the fp32 pixels [3, 384, 384] of each picture that pixel_vectors.py makes."
    PATH.write_text(json.dumps({"about": about, "pillow": PIL.__version__, "hashes": hashes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
