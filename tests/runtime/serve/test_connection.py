"""Connections that send no request, or read no answer."""

import pytest

from tests.runtime.serve.conftest import serving
from tests.runtime.serve.http_client import read_all, read_until


@pytest.fixture(scope="module")
def impatient(model):
    with serving(model, header_timeout_s=0.3, send_timeout_s=0.3) as server:
        yield server


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost: loc"])
def test_half_a_head(impatient, sent):
    with impatient.socket() as stream:
        stream.sendall(sent)
        assert read_all(stream) == b""


def test_half_a_second_head(impatient):
    with impatient.socket() as stream:
        stream.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b" 200 OK" in read_until(stream, b'{"status":"ok"}')
        stream.sendall(b"GET /health HTT")
        assert read_all(stream) == b""


def test_a_head_that_is_too_long(server):
    with server.socket() as stream:
        stream.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * (80 << 10))
        assert read_all(stream).startswith((b"HTTP/1.1 400", b""))


def test_a_client_that_does_not_read(scripted):
    """Its answer is longer than what the system takes over for it. The server lets go of it and of its work."""
    with serving(scripted, send_timeout_s=0.2) as server, server.socket() as stream:
        stream.sendall(server.request_bytes("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "?"}], "stream": true}'))
        request = scripted.next()
        for _ in range(40):
            request.say("x" * (1 << 20))
        assert request.handle.cancelled.wait(60)
        assert not read_all(stream).endswith(b"[DONE]\n\n")
