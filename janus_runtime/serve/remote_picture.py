"""Fetches a picture from another host, for `--allow-remote-images`.

A client must not reach through us what only we can reach. So the address is looked up once, must be a public one, and is the one
that is connected to; there are no redirects, no proxies and no credentials.
"""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from urllib.parse import SplitResult, urlsplit

from .api_error import refuse

_TIMEOUT_S = 20.0
_CHUNK = 64 << 10


def fetch_picture(url: str, max_bytes: int) -> bytes:
    """The bytes at `url`. Blocks. Raises ApiError with the reason."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise refuse("image_url is not a valid address", "image_url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise refuse("image_url must be a data: URL or http(s)://host/path without a password", "image_url")
    try:
        return _get(parts, _public_address(parts.hostname, port), port, max_bytes)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise refuse(f"the picture at {parts.hostname} could not be fetched: {type(error).__name__}; send it as a data: URL") from None


def _public_address(host: str, port: int) -> str:
    """The first address of `host`. Every one must be public: a name may have several."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for each in found:
        if not is_public(each):
            raise refuse(f"image_url leads to {host}, which is not a public address; send the picture as a data: URL", "image_url")
    return found[0]


def is_public(address: str) -> bool:
    """An address of IPv6 may hold one of IPv4, which is then what counts."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1] or _nat64(ip)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in ipaddress.ip_network("64:ff9b::/96") else None


def _get(parts: SplitResult, address: str, port: int, max_bytes: int) -> bytes:
    assert parts.hostname is not None
    stream = socket.create_connection((address, port), timeout=_TIMEOUT_S)
    # The time limit of a socket is one for each read, of which a slow host can make many.
    same, expired = stream.dup(), threading.Event()
    timer = threading.Timer(_TIMEOUT_S, _shut_down, (same, expired))
    timer.daemon = True
    timer.start()
    try:
        if parts.scheme == "https":
            stream = ssl.create_default_context().wrap_socket(stream, server_hostname=parts.hostname)
        connection = http.client.HTTPConnection(parts.hostname, port)
        connection.default_port = 443 if parts.scheme == "https" else 80
        connection.sock = stream
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "janus-rt"})
        body = bytearray()
        with connection.getresponse() as response:
            if response.status != 200:
                raise refuse(f"the picture at {parts.hostname} was answered with status {response.status}; expected 200, without redirects")
            while chunk := response.read1(_CHUNK):
                body += chunk
                if len(body) > max_bytes:
                    raise refuse(f"the picture at {parts.hostname} has more than {max_bytes:,} bytes; send a smaller one", "image_url")
        if expired.is_set():
            raise TimeoutError
        return bytes(body)
    finally:
        timer.cancel()
        same.close()
        stream.close()


def _shut_down(stream: socket.socket, expired: threading.Event) -> None:
    """Ends every read and write that waits, as if the host had come to its end."""
    expired.set()
    with contextlib.suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)
