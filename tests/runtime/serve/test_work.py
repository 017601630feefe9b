"""Clients that go away, and what the model then does."""

import threading

import pytest

from janus_runtime.errors import Cancelled
from tests.runtime.serve.conftest import serving
from tests.runtime.serve.http_client import read_until

DRAW = ("/v1/images/generations", b'{"prompt": "a"}')
DRAW_STREAM = ("/v1/images/generations", b'{"prompt": "a", "stream": true}')
ASK = ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "?"}]}')
ASK_STREAM = ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "?"}], "stream": true}')
ALL = [DRAW, DRAW_STREAM, ASK, ASK_STREAM]


@pytest.mark.parametrize(("path", "body"), ALL)
def test_a_client_that_goes_away_frees_its_rows(scripted, scripted_server, path, body):
    with scripted_server.socket() as stream:
        stream.sendall(scripted_server.request_bytes(path, body))
        request = scripted.next()
        assert not request.handle.cancelled.is_set()
    assert request.handle.cancelled.wait(60)
    # Those that come after it are not harmed.
    with scripted_server.socket() as stream:
        stream.sendall(scripted_server.request_bytes(*DRAW))
        request = scripted.next()
        request.draw()
        request.finish()
        assert b" 200 OK" in read_until(stream, b"usage")


@pytest.mark.parametrize(("path", "body"), ALL)
def test_a_client_that_goes_away_while_its_request_is_checked(scripted, scripted_server, path, body):
    scripted.hold = threading.Event()
    with scripted_server.socket() as stream:
        stream.sendall(scripted_server.request_bytes(path, body))
        request = scripted.next()
    while scripted_server.service.traffic.requests:
        threading.Event().wait(0.01)
    scripted.hold.set()
    assert request.handle.cancelled.wait(60)


def test_a_client_that_goes_away_from_several_answers(scripted, scripted_server):
    with scripted_server.socket() as stream:
        stream.sendall(scripted_server.request_bytes(ASK[0], ASK[1][:-1] + b', "n": 3}'))
        requests = [scripted.next() for _ in range(3)]
        requests[1].say("done")
        requests[1].finish("eos")
    assert requests[0].handle.cancelled.wait(60) and requests[2].handle.cancelled.wait(60)


def test_rows_of_the_real_model_are_free_again(model, server):
    """And who comes then is served."""
    for _ in range(3):
        with server.socket() as stream:
            stream.sendall(server.request_bytes("/v1/images/generations", b'{"prompt": "a red circle", "n": 10, "stream": false}'))
            while not model.status().running:
                threading.Event().wait(0.01)
    assert server.draw().status == 200
    while model.status().running:
        threading.Event().wait(0.01)


def test_a_quiet_stream_pings(scripted, scripted_server):
    with scripted_server.socket() as stream:
        stream.sendall(scripted_server.request_bytes(*DRAW_STREAM, "connection: close"))
        request = scripted.next()
        data = read_until(stream, b": ping\n\n")
        assert b"content-type: text/event-stream" in data and b"x-accel-buffering: no" in data
        data = read_until(stream, b": ping\n\n")
        request.draw()
        request.finish()
        assert b"image_generation.completed" in read_until(stream, b"0\r\n\r\n")


def test_one_part_that_fails_ends_the_others(scripted, scripted_server):
    with scripted_server.socket() as stream:
        stream.sendall(scripted_server.request_bytes(ASK[0], ASK[1][:-1] + b', "n": 2}'))
        first, second = scripted.next(), scripted.next()
        first.fail(Cancelled("by the model"))
        assert second.handle.cancelled.wait(60)
        assert stream.recv(12) == b"HTTP/1.1 503"


def test_a_loop_that_has_ended_hears_nothing(scripted):
    """The model's threads may outlive the server."""
    with serving(scripted) as server, server.socket() as stream:
        stream.sendall(server.request_bytes(*DRAW_STREAM))
        request = scripted.next()
        server.server.should_exit = True
    request.draw()
    request.finish()
