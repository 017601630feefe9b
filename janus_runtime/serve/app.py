"""Puts the server together: routes, what answers for errors, what stands before the routes, and the OpenAPI document."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from .. import __version__
from ..errors import JanusError
from .api_error import ApiError, ClientGone, invalid_fields, run_error
from .body import Body
from .chat import chat_routes
from .gate import OPEN_PATHS, Gate
from .image_schema import EditRequest
from .images import image_routes
from .journal import Journal
from .page import page_routes
from .probes import probe_routes
from .service import Service

_log = logging.getLogger("janus_runtime.serve")


def make_app(service: Service) -> ASGIApp:
    """The whole server as an ASGI application."""
    # No pages of documentation: FastAPI's load their scripts from other hosts.
    api = FastAPI(title="janus-rt", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    for routes in (image_routes(service), chat_routes(service), probe_routes(service), page_routes()):
        api.include_router(routes)
    _answer_for_errors(api)
    document = _describe(api, with_key=service.settings.api_key is not None)
    api.openapi = lambda: document  # type: ignore[method-assign]
    paths = frozenset(document["paths"]) | {"/openapi.json"}
    body = Body(api, service.settings)
    return Journal(Gate(body, service.settings, service.traffic), service.metrics, paths)


def _answer_for_errors(api: FastAPI) -> None:
    @api.exception_handler(ApiError)
    @api.exception_handler(JanusError)
    @api.exception_handler(MemoryError)
    async def _answer(request: Request, error: Exception) -> Response:
        answer = run_error(error)
        if answer.status == 500:
            # Of one that became an answer when it was raised: what it was.
            _log.error("a request met a fault", exc_info=error.__cause__ or error)
        return answer.response()

    @api.exception_handler(RequestValidationError)
    async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
        return invalid_fields(error.errors()).response()

    @api.exception_handler(HTTPException)
    async def _answer_http(request: Request, error: HTTPException) -> Response:
        messages = {
            404: f"there is nothing at {request.url.path}; see /openapi.json for what there is",
            405: f"{request.method} is not for {request.url.path}; see /openapi.json for what is",
        }
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_value")
        message = messages.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, code=code, headers=dict(error.headers or {})).response()

    # Starlette raises it again when the answer is sent; the journal writes it down.
    @api.exception_handler(Exception)
    async def _answer_fault(request: Request, error: Exception) -> Response:
        return run_error(error).response()

    @api.exception_handler(ClientGone)
    async def _note_gone(request: Request, error: ClientGone) -> Response:
        request.state.client_gone = True
        return Response(status_code=499)


def _describe(api: FastAPI, with_key: bool) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, without the status that we answer with 400, and with what it cannot see."""
    document = api.openapi()
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["EditRequest"] = EditRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    if with_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if with_key and path not in OPEN_PATHS:
                operation["security"] = [{"key": []}]
    return document
