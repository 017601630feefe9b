"""Pictures of a request: `data:` URLs, and remote ones where they are allowed. Blocks: to be called in a thread."""

import base64
import binascii
import re
from collections.abc import Sequence

from PIL import Image

from ..errors import ImageError
from ..pictures.image import decode_image
from .api_error import refuse
from .remote_picture import fetch_picture
from .settings import ServeSettings

_DATA = re.compile(r"data:[^,;]*(;[^,;]*)*,", re.IGNORECASE)


def read_url(url: str, name: str, settings: ServeSettings) -> Image.Image:
    """The picture that `url` holds or leads to, which messages call `name`. Raises ApiError."""
    if url[:5].lower() == "data:":
        data = _decode_data_url(url, name)
    elif settings.allow_remote_images:
        data = fetch_picture(url, settings.max_body_bytes)
    else:
        raise refuse(
            f"{name} is no data: URL; send the picture as data:image/png;base64,…, or start the server with --allow-remote-images",
            "image_url",
        )
    return read_picture(data, name, "image_url")


def read_picture(data: bytes, name: str, param: str) -> Image.Image:
    """A picture file's bytes as RGB, upright. Raises ApiError."""
    try:
        return decode_image(data, name)
    except ImageError as error:
        raise refuse(str(error), param, error.code) from None


def check_pixels(images: Sequence[Image.Image], param: str, settings: ServeSettings) -> None:
    """Raises ApiError if a request's pictures have too many pixels together. Decoded, each takes three bytes of memory."""
    count = sum(image.width * image.height for image in images)
    if count > settings.max_pixels:
        raise refuse(f"the pictures have {count:,} pixels; this server takes {settings.max_pixels:,} in a request: scale them down", param)


def _decode_data_url(url: str, name: str) -> bytes:
    # Of the beginning alone: the rest may be millions of characters.
    head = _DATA.match(url[:200])
    if head is None or not head[0].lower().endswith(";base64,"):
        raise refuse(f"{name} is a data: URL without base64; expected data:image/png;base64,…", "image_url")
    try:
        return base64.b64decode("".join(url[head.end() :].split()), validate=True)
    except (binascii.Error, ValueError):
        raise refuse(f"{name} is a data: URL whose base64 is damaged; encode the picture's file again", "image_url") from None
