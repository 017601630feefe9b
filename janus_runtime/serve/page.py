"""The page at `/`: files of `page/`, which ask the server's public routes as any client does."""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from .api_error import ApiError, documented

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page brings all that it needs, runs nothing that stands in a document, and stands in no other page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    # A newer server may have a newer page; what is unchanged is not sent again.
    "cache-control": "no-cache",
}


def page_routes() -> APIRouter:
    router = APIRouter(tags=["server"])
    files = {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _TYPES}

    def answer(name: str, request: Request) -> Response:
        tag = f'"{hashlib.sha256(files[name]).hexdigest()[:16]}"'
        headers = {**_HEADERS, "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(files[name], headers=headers, media_type=_TYPES[Path(name).suffix])

    @router.get("/", response_class=Response, summary="The page", responses=_HTML | documented(403))
    async def index(request: Request) -> Response:
        return answer("index.html", request)

    @router.get("/page/{name}", include_in_schema=False)
    async def part(name: str, request: Request) -> Response:
        if name not in files:
            raise ApiError(404, f"the page has no part {name!r}", code="not_found")
        return answer(name, request)

    return router


_HTML: dict[int | str, dict[str, object]] = {
    200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}},
    304: {"description": "The page has not changed."},
}
