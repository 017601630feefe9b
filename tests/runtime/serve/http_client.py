"""A plain client: requests as they are written, and sockets for those that no library would send."""

import http.client
import json
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's object, and nothing else."""
        assert set(self.json) == {"error"}
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str) and error["message"]
        assert error["code"] is None or isinstance(error["code"], str)
        return error

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events; [DONE] as it is."""
        found = [line.removeprefix(b"data: ") for line in self.body.splitlines() if line.startswith(b"data: ")]
        return [each.decode() if each == b"[DONE]" else json.loads(each) for each in found]


class HttpClient:
    def __init__(self, url: str, service: Any = None, server: Any = None) -> None:
        self.url = url
        self.service = service
        self.server = server
        parts = urlsplit(url)
        self.address = (parts.hostname, parts.port)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 60) -> Answer:
        """`body`: bytes as they are, or a value to be sent as JSON."""
        headers = {name.lower(): value for name, value in (headers or {}).items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("content-type", "application/json")
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def draw(self, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        return self.ask("POST", "/v1/images/generations", {"prompt": "a red circle", **fields}, headers)

    def chat(self, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        return self.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "what is this"}], **fields}, headers)

    @contextmanager
    def socket(self):
        """A connection to send bytes on."""
        with socket.create_connection(self.address, timeout=60) as opened:
            yield opened

    def request_bytes(self, path: str, body: bytes, *headers: str) -> bytes:
        """A POST with JSON, as it goes over a socket."""
        lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json", f"content-length: {len(body)}", *headers]
        return "\r\n".join([*lines, "", ""]).encode() + body


def read_until(stream: socket.socket, mark: bytes) -> bytes:
    """What comes on a socket, up to and with `mark`, or to its end."""
    data = b""
    while mark not in data and (more := stream.recv(65536)):
        data += more
    return data


def read_all(stream: socket.socket) -> bytes:
    """What comes on a socket to its end; a reset is an end."""
    data = b""
    try:
        while more := stream.recv(65536):
            data += more
    except ConnectionError:
        pass
    return data


def multipart(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    """(name, file name, data) -> the body of a form and its headers."""
    body = b""
    for name, filename, data in parts:
        file = f'; filename="{filename}"\r\ncontent-type: application/octet-stream' if filename else ""
        body += f'--edge\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    return body + b"--edge--\r\n", {"content-type": "multipart/form-data; boundary=edge"}
