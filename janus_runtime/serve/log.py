"""What the server writes on stderr: a line for each request and for each event of its own, as JSON or as text."""

import json
import logging
import sys
import time
from typing import Literal

from ..console.output import printable


class _Formatter(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
        request: dict[str, object] | None = getattr(record, "request", None)
        trace = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else None
        if self._as_json:
            said = request or {"message": record.getMessage(), **({"trace": trace} if trace else {})}
            return json.dumps({"time": at, "level": record.levelname.lower(), **said})
        if request:
            rest = " ".join(f"{key}={value}" for key, value in list(request.items())[4:] if value is not None)
            text = f"{request['method']} {request['path']} {request['status']} {rest} request_id={request['request_id']}"
            # A path may hold a line's end or what a terminal obeys.
            text = printable(" ".join(text.split()))
        else:
            text = printable(record.getMessage()) + (f"\n{trace}" if trace else "")
        return f"{at} {text}"


def set_up_log(format: Literal["json", "text"], quiet: bool) -> None:
    """Ours and uvicorn's records to stderr; with `quiet` errors alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(format == "json"))
    for name, level in (("janus_runtime", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.ERROR if quiet else level)
