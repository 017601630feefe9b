"""Who may ask, as it is given to the server: the key, and origins. Imports none of the server's packages."""

import os
import re
from pathlib import Path

from ..errors import JanusError

KEY_VARIABLE = "JANUS_API_KEY"


def read_key(path: Path | None) -> str | None:
    """The key of the file, else of the environment. Raises JanusError on a file that cannot be read, and on a key that no header can
    carry."""
    try:
        key = (os.environ.get(KEY_VARIABLE, "") if path is None else path.read_text(encoding="utf-8")).strip()
    except UnicodeDecodeError:
        key = "\0"
    except OSError as error:
        raise JanusError(f"the API key's file {path} cannot be read: {error.strerror}; give one that is there") from None
    source = KEY_VARIABLE if path is None else str(path)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise JanusError(f"the API key in {source} has characters that a header cannot carry; use letters and digits")
    if path is not None and not key:
        raise JanusError(f"{source} is empty; expected an API key: make one with openssl rand -hex 24")
    return key or None


def check_origin(origin: str) -> None:
    """Raises ValueError."""
    if not re.fullmatch(r"https?://[^/\s*]+", origin):
        raise ValueError(f"{origin!r} is no origin; expected one such as https://chat.example.com")
