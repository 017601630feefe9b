"""Requests that are sent again."""

import asyncio
import threading

import pytest

from tests.runtime.serve.conftest import serving

KEY = {"idempotency-key": "one"}


def ask_later(server, **arguments):
    """A request in a thread; its answer when it is joined."""
    found = []
    thread = threading.Thread(target=lambda: found.append(server.draw(**arguments)))
    thread.start()

    def join():
        thread.join()
        return found[0]

    return join


def wait_for_requests(server, count):
    while server.service.traffic.requests != count:
        threading.Event().wait(0.01)


def test_the_same_answer_for_the_same_key(server):
    first, second = (server.draw(KEY | {"idempotency-key": "same"}) for _ in range(2))
    assert first.status == 200 and first.body == second.body
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert server.draw().body != first.body


def test_who_comes_while_the_first_runs_joins_it(scripted, fresh_server):
    first = ask_later(fresh_server, headers=KEY)
    request = scripted.next()
    second = ask_later(fresh_server, headers=KEY)
    wait_for_requests(fresh_server, 2)
    request.draw()
    request.finish()
    assert first().body == second().body and len(scripted.submitted) == 1


def test_the_work_goes_on_when_its_client_goes_away(scripted, fresh_server):
    """As a client does that has waited long enough, and asks again."""
    with fresh_server.socket() as stream:
        stream.sendall(fresh_server.request_bytes("/v1/images/generations", b'{"prompt": "a red circle"}', "idempotency-key: one"))
        request = scripted.next()
    wait_for_requests(fresh_server, 0)
    assert not request.handle.cancelled.is_set()
    again = ask_later(fresh_server, headers=KEY)
    wait_for_requests(fresh_server, 1)
    request.draw()
    request.finish()
    assert again().status == 200 and len(scripted.submitted) == 1


def test_another_body_under_the_same_key(scripted, fresh_server):
    first = ask_later(fresh_server, headers=KEY)
    request = scripted.next()
    answer = fresh_server.draw(KEY, n=2)
    assert answer.status == 409 and answer.error["code"] == "idempotency_key" and answer.headers["x-should-retry"] == "false"
    assert fresh_server.chat(KEY).status == 409
    request.draw()
    request.finish()
    assert first().status == 200


def test_errors_are_not_kept(scripted, fresh_server):
    scripted.error = ValueError("not today")
    assert fresh_server.draw(KEY).status == 400
    scripted.error = None
    again = ask_later(fresh_server, headers=KEY)
    request = scripted.next()
    request.draw()
    request.finish()
    assert again().status == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "\xe4"])
def test_keys_that_cannot_be_used(server, key):
    assert server.draw({"idempotency-key": key}).error["param"] == "Idempotency-Key"


@pytest.mark.parametrize("ask", ["draw", "chat"])
def test_streams_have_no_key(server, ask):
    answer = getattr(server, ask)(KEY, stream=True)
    assert answer.status == 400 and "not streams" in answer.error["message"]


def test_more_keys_at_once_than_the_server_keeps(scripted):
    with serving(scripted, kept_answers=1) as server:
        first = ask_later(server, headers=KEY)
        request = scripted.next()
        assert server.draw({"idempotency-key": "two"}).status == 429
        request.draw()
        request.finish()
        assert first().status == 200
        # The one that is done gives way.
        second = ask_later(server, headers={"idempotency-key": "two"})
        request = scripted.next()
        request.draw()
        request.finish()
        assert second().status == 200


class Request:
    """As much of one as is looked at."""

    def __init__(self, key, body=b"{}"):
        self.headers = {"idempotency-key": key}
        self.url = type("Url", (), {"path": "/"})
        self._body = body

    async def body(self):
        return self._body

    async def receive(self):
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("limits", "made"),
    [
        ({}, ["a", "b", "c"]),
        ({"kept_answers": 2}, ["a", "b", "c", "a"]),
        ({"kept_answer_bytes": 25}, ["a", "b", "c", "a"]),
        ({"kept_answer_bytes": 5}, ["a", "b", "c", "a", "b", "c"]),
        ({"kept_answer_s": -1.0}, ["a", "b", "c", "a", "b", "c"]),
    ],
)
def test_the_store_is_bounded_in_count_bytes_and_time(settings, run_async, limits, made):
    from janus_runtime.serve.idempotency import Answers

    async def ask():
        answers, calls = Answers(settings(**limits)), []

        def make(key):
            async def answer():
                calls.append(key)
                return b"0123456789"

            return answer

        for key in ("a", "b", "c"):
            await answers.get(Request(key), make(key))
        for key in ("a", "b", "c") if len(made) != 4 else ("a",):
            assert await answers.get(Request(key), make(key)) == b"0123456789"
        return calls

    assert run_async(ask()) == made


def test_stopping_does_not_wait_for_what_nobody_wants(scripted):
    """Within the grace a lost client may come back; at its end the work ends."""
    with serving(scripted, grace_s=0.1) as server:
        with server.socket() as stream:
            stream.sendall(server.request_bytes("/v1/images/generations", b'{"prompt": "a"}', "idempotency-key: one"))
            request = scripted.next()
        wait_for_requests(server, 0)
        server.server.stop()
        assert request.handle.cancelled.wait(60)
