"""How results are printed."""

from typing import Any

from ..chat import Answer
from ..console.output import print_json, say
from ..janus import Janus


def print_answer(answer: Answer) -> None:
    """Prints the text as it comes, and ends the line however the answer ends."""
    try:
        for piece in answer:
            say(piece, end="")
    finally:
        say("")


def print_result(janus: Janus, **values: Any) -> None:
    """Prints one JSON object, with where it comes from."""
    print_json({**values, "backend": janus.backend, "bundle": str(janus.bundle_path)})
