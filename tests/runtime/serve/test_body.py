"""Bodies that are too long or too slow, with their length stated or not."""

import contextlib

import pytest

from tests.runtime.serve.conftest import serving
from tests.runtime.serve.http_client import Answer, read_all

LIMIT = 4096
PATH = "/v1/images/generations"


@pytest.fixture(scope="module")
def narrow(model):
    with serving(model, max_body_bytes=LIMIT) as server:
        yield server


def head(*lines):
    return "\r\n".join([f"POST {PATH} HTTP/1.1", "host: localhost", "content-type: application/json", *lines, "", ""]).encode()


def parse(data):
    head, _, body = data.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]), {}, body)


def chunked(*chunks):
    return b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in (*chunks, b""))


def test_as_long_as_allowed(narrow):
    prompt = "a red circle"
    body = f'{{"prompt": "{prompt}"{" " * (LIMIT - 14 - len(prompt))}}}'.encode()
    assert len(body) == LIMIT
    assert narrow.ask("POST", PATH, body, {"content-type": "application/json"}).status == 200


@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT, 100 * LIMIT])
def test_longer(narrow, size):
    with narrow.socket() as stream:
        stream.sendall(head(f"content-length: {size}", "connection: close") + b" " * min(size, 3 * LIMIT))
        answer = parse(read_all(stream))
    assert answer.status == 413 and answer.error["code"] == "body_too_long" and "4,096" in answer.error["message"]


@pytest.mark.parametrize("count", [5, 1000])
def test_longer_without_a_length(narrow, count):
    with narrow.socket() as stream:
        stream.sendall(head("transfer-encoding: chunked", "connection: close"))
        try:
            for _ in range(count):
                stream.sendall(chunked(b" " * 1024)[:-5])
            stream.sendall(b"0\r\n\r\n")
        except ConnectionError:
            assert count == 1000  # The server has heard enough.
            return
        answer = parse(read_all(stream))
    assert answer.status == 413


def test_chunked(narrow):
    with narrow.socket() as stream:
        stream.sendall(head("transfer-encoding: chunked", "connection: close") + chunked(b'{"prompt":', b'"a red circle"', b"}"))
        assert b" 200 OK" in read_all(stream)


def test_a_client_that_asks_first_is_refused_first(narrow):
    with narrow.socket() as stream:
        stream.sendall(head(f"content-length: {2 * LIMIT}", "expect: 100-continue"))
        assert stream.recv(12) == b"HTTP/1.1 413"


def test_a_body_that_does_not_come(scripted):
    with serving(scripted, body_timeout_s=0.2) as server, server.socket() as stream:
        stream.sendall(head("content-length: 100") + b"{")
        answer = parse(read_all(stream))
    assert answer.status == 408 and answer.error["code"] == "body_timeout"


def test_more_bodies_than_memory_is_given_for(scripted):
    body = b'{"prompt": "a"' + b" " * 1000 + b"}"
    with serving(scripted, max_body_bytes=1024) as server, contextlib.ExitStack() as streams:
        for _ in range(16):
            streams.enter_context(server.socket()).sendall(server.request_bytes(PATH, body))
            scripted.next()
        answer = server.ask("POST", PATH, body, {"content-type": "application/json"})
        assert answer.status == 429 and "bodies" in answer.error["message"] and answer.headers["retry-after"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"a"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b"\0"])
@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
def test_junk(server, path, body):
    answer = server.ask("POST", path, body, {"content-type": "application/json"})
    assert answer.status == 400 and answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/no", 404), ("POST", "/no", 404), ("PUT", PATH, 405), ("DELETE", "/", 405)]
)
def test_other_paths_and_methods(server, method, path, status):
    answer = server.ask(method, path)
    assert answer.status == status and answer.error["code"] in ("not_found", "method_not_allowed")
    assert answer.error["message"].count("openapi.json") == 1 and (status == 404 or answer.headers["allow"])
