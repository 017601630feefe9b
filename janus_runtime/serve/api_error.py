"""Errors as OpenAI's clients read them: `{"error": {message, type, param, code}}` under an HTTP status."""

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticCustomError
from starlette.responses import JSONResponse

from ..errors import (
    BackendError,
    Busy,
    Cancelled,
    ConversationFull,
    DeadlineExceeded,
    ImageError,
    JanusError,
    NumericalError,
    OutOfMemory,
    PromptError,
    ReplicaLost,
    TooLarge,
    first_line,
)

# OpenAI's word for each class of errors.
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """What every error is answered with."""

    error: ErrorObject


class ApiError(Exception):
    """An answer that is an error. `param` is the field at fault; `code` is stable."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        # A message may quote a name that is not UTF-8, which JSON could not carry.
        message = str(self).encode(errors="replace").decode()
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


class ClientGone(Exception):
    """Nobody is there to read the answer."""


def refuse(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A request that cannot be carried out as it is."""
    return ApiError(400, message, code=code, param=param)


def submit_error(error: Exception) -> ApiError:
    """Why the model did not take a request. What it then says of values and of this backend, the request must change."""
    if isinstance(error, ValueError) or type(error) is BackendError:
        return refuse(str(error), code=error.code if isinstance(error, JanusError) else "invalid_value")
    return run_error(error)


def run_error(error: Exception) -> ApiError:
    """An error of the model as an answer. The message of one that is a fault of ours stays in the log."""
    message = str(error)
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Busy):
        seconds = max(math.ceil(error.retry_after_s), 1)
        return ApiError(429, message, code=error.code, headers={"retry-after": str(seconds)})
    if isinstance(error, PromptError):
        code = "context_length_exceeded" if isinstance(error, ConversationFull) else error.code
        return refuse(message, "messages" if isinstance(error, ConversationFull) else None, code)
    if isinstance(error, ImageError):
        return refuse(message, "image", error.code)
    if isinstance(error, DeadlineExceeded):
        # Again it would take as long.
        return ApiError(504, message, code=error.code, headers={"x-should-retry": "false"})
    if isinstance(error, Cancelled):
        return unavailable("the server is stopping and ended this request; send it again to the next one", "stopping")
    if isinstance(error, OutOfMemory | MemoryError):
        return unavailable(f"out of memory ({first_line(error)}); ask for less at once, or try again later", "out_of_memory")
    if isinstance(error, TooLarge):
        return refuse(message, code=error.code)
    if isinstance(error, NumericalError | BackendError):
        return ApiError(500, message, code=error.code)
    if isinstance(error, ReplicaLost) or type(error) is JanusError:
        return unavailable(message, error.code)
    return ApiError(500, "this request met a fault of the server; its log has the reason under the x-request-id", code="internal_error")


def unavailable(message: str, code: str) -> ApiError:
    return ApiError(503, message, code=code, headers={"retry-after": "5"})


def field_error(param: str, message: str) -> PydanticCustomError:
    """What a validator raises of a field, or of several together, that one of them is to be named for."""
    return PydanticCustomError("field", message, {"param": param})


def invalid_fields(errors: Sequence[Any]) -> ApiError:
    """The first thing wrong with a body, in pydantic's words or in ours. Of a union, what is wrong with the branch that fits best."""
    first = max(errors, key=lambda error: len(error["loc"]))
    if first["type"] in ("json_invalid", "json_type"):
        return refuse("the body is not JSON; send one JSON object", code="invalid_json")
    message, path = first["msg"], _path(first["loc"])
    if first["type"] == "field":
        return refuse(message, first["ctx"]["param"])
    if first["type"] == "missing":
        return refuse(f"{path or 'the body'} is missing", path or None)
    return refuse(f"{path or 'the body'}: {message[:1].lower()}{message[1:]}", path or None)


def _path(loc: Sequence[int | str]) -> str:
    """`messages.0.content`, without what names a branch of a union."""
    parts = [str(part) for part in loc if isinstance(part, int) or part.replace("_", "").isalnum()]
    parts = parts[1:] if parts[:1] == ["body"] else parts
    return ".".join(part for at, part in enumerate(parts) if part != "str" and part not in parts[at - 1 : at])


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entry of each error that a route may answer with."""
    texts = {
        400: "The request cannot be carried out as it is.",
        401: "The API key is missing or wrong.",
        403: "The Host or the Origin of the request is not allowed.",
        404: "There is no such model.",
        408: "The body took too long to arrive.",
        409: "The Idempotency-Key was used with another body.",
        413: "The body is too long.",
        415: "The body has the wrong content type.",
        429: "The queue is full; Retry-After says when to try again.",
        500: "A fault of the model or of the server.",
        503: "The server is stopping or out of memory.",
        504: "The request was not done within the server's time limit.",
    }
    return {status: {"model": ErrorBody, "description": texts[status]} for status in statuses}
