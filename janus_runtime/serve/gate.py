"""Who may ask: the Host and Origin headers, the API key, the content type, and whether there is room.

A page that somebody visits can make his browser send requests to this machine. A Host that is not ours is a foreign name that was
made to lead here; an Origin that is not ours is a foreign page.
"""

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_error import ApiError, unavailable
from .settings import LOOPBACK, ServeSettings
from .traffic import Traffic

# What a browser may see without a key, and a probe has none.
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/openapi.json"})
_OPEN_FOLDER = "/page/"
_CONTENT_TYPES = {
    "/v1/images/generations": "application/json",
    "/v1/chat/completions": "application/json",
    "/v1/images/edits": "multipart/form-data",
}


class Gate:
    """ASGI middleware that answers with an error what may not come in."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, traffic: Traffic) -> None:
        self._app = app
        self._settings = settings
        self._traffic = traffic
        self._key = settings.api_key.encode() if settings.api_key else None
        self._hosts = LOOPBACK | {settings.host.lower()} | {name.lower() for name in settings.allowed_hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        foreign = origin.lower() in self._origins
        if foreign:
            send = _allowing(origin, send)
        try:
            self._check_host(headers)
            if origin and not foreign:
                _check_origin(origin, headers)
            if foreign and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
                return
            if scope["path"] not in OPEN_PATHS and not scope["path"].startswith(_OPEN_FOLDER):
                self._check_key(headers)
            if scope["method"] == "POST":
                _check_content_type(scope["path"], headers)
                self._check_room()
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        self._traffic.requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._traffic.requests -= 1

    def _check_host(self, headers: Headers) -> None:
        host = _host_name(headers.get("host", ""))
        # An address is no name that a foreigner could have made to lead here.
        if host in self._hosts or "*" in self._hosts or (not self._settings.is_loopback and _is_address(host)):
            return
        raise ApiError(
            403,
            f"the Host header names {host or 'nothing'!r}; expected one of {', '.join(sorted(self._hosts))}: "
            "ask under that name, or start the server with --allowed-host",
            code="host_not_allowed",
        )

    def _check_key(self, headers: Headers) -> None:
        if self._key is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Of bytes: the comparison takes as long whatever was given.
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(errors="replace"), self._key):
            return
        message = "the API key is wrong" if given else "the API key is missing; send it as Authorization: Bearer KEY"
        raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})

    def _check_room(self) -> None:
        if self._traffic.stopping:
            raise unavailable("the server is stopping; ask the next one", "stopping")
        if self._traffic.requests >= self._settings.max_requests:
            message = f"the server has {self._settings.max_requests} requests in hand, as many as it takes; try again later"
            raise ApiError(429, message, code="busy", headers={"retry-after": "5"})


def _check_origin(origin: str, headers: Headers) -> None:
    """Same origin: the page came from the host that it asks. A proxy may have ended TLS between, so schemes may differ."""
    try:
        page, host = urlsplit(origin.lower()), headers.get("host", "").lower()
        default = {"http": ":80", "https": ":443"}.get(page.scheme, "")
        same = bool(page.netloc) and page.netloc.removesuffix(default) == host.removesuffix(default)
    except ValueError:
        same = False
    if not same:
        message = f"pages of {origin!r} may not ask this server; start it with --cors-origin {origin} if they should"
        raise ApiError(403, message, code="origin_not_allowed")


def _check_content_type(path: str, headers: Headers) -> None:
    expected = _CONTENT_TYPES.get(path)
    given = headers.get("content-type", "")
    if expected and given.partition(";")[0].strip().lower() != expected:
        raise ApiError(415, f"the body has content type {given or 'nothing'!r}; expected {expected}", code="unsupported_media_type")


def _host_name(host: str) -> str:
    """A Host header without its port; of an address of IPv6, without the brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "authorization, content-type, idempotency-key, x-request-id",
    "access-control-max-age": "600",
}


def _allowing(origin: str, send: Send) -> Send:
    """Lets pages of `origin` read the answer."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = "x-request-id, retry-after"
            headers.add_vary_header("origin")
        await send(message)

    return wrapped
