"""What commands write: text for people, JSON for programs, on streams of any encoding and on terminals."""

import codecs
import io
import json
import os
import re
import sys
from typing import Any

# C0, DEL and C1, but not tab and newline, and bytes of a file name that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\udc80-\udcff]")


def set_up_streams() -> None:
    """Reopens closed streams on the null device, and lets stdin and stdout take text that their encoding cannot express."""
    # A closed stream is None here.
    sys.stdin, sys.stdout, sys.stderr = (
        stream or open(os.devnull, mode) for stream, mode in ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w"))
    )
    # Python's stderr replaces what it cannot encode in any case.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "janus_escape")):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != errors:
            stream.reconfigure(errors=errors)


def _escape(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes of a file name come out as they were, so that another program finds the file; characters become `\\xNN` or `\\uNNNN`."""
    assert isinstance(error, UnicodeEncodeError)
    handler = "surrogateescape" if "\udc80" <= error.object[error.start] <= "\udcff" else "backslashreplace"
    return error.object[error.start].encode("ascii", handler), error.start + 1


codecs.register_error("janus_escape", _escape)


def printable(text: str) -> str:
    """`text` with `\\xNN` in place of everything that a terminal would obey or could not show. Newlines and tabs stay."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", text)


def say(text: str, end: str = "\n") -> None:
    """Writes a result to stdout, at once. A terminal gets it printable, a pipe or a file as it is."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + end)
    sys.stdout.flush()


def note(text: str, end: str = "\n") -> None:
    """Writes a remark for people to stderr, at once and printable."""
    sys.stderr.write(printable(text) + end)
    sys.stderr.flush()


def print_json(values: Any) -> None:
    """Writes one line of JSON to stdout, in ASCII where the stream's encoding or a terminal could not take it otherwise."""
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
        legible = printable(text) == text
    except UnicodeEncodeError:
        legible = False
    say(text if legible else json.dumps(values))
