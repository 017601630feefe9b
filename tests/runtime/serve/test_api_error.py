"""What the model raises, as answers: at once, and in the middle of a stream."""

import pytest

from janus_runtime.errors import (
    BackendError,
    BundleError,
    Busy,
    Cancelled,
    ConversationFull,
    DeadlineExceeded,
    ImageError,
    JanusError,
    NumericalError,
    OutOfMemory,
    PromptError,
    TooLarge,
)
from tests.runtime.serve.http_client import read_all, read_until

AT_SUBMIT = [
    (PromptError("the prompt is odd"), 400, "prompt", "the prompt is odd"),
    (ConversationFull("too long"), 400, "context_length_exceeded", "too long"),
    (ImageError("no picture"), 400, "image", "no picture"),
    (ValueError("n is 1000"), 400, "invalid_value", "n is 1000"),
    (BackendError("image-to-image needs 3 rows"), 400, "backend", "3 rows"),
    (OutOfMemory("the device is full"), 503, "out_of_memory", "the device is full"),
    (MemoryError(), 503, "out_of_memory", "MemoryError"),
    (Busy("64 wait", 2.2), 429, "busy", "64 wait"),
    (JanusError("this model is closed"), 503, "error", "closed"),
    (BundleError("/models/x is altered"), 500, "internal_error", "x-request-id"),
    (RuntimeError("/models/x has a fault"), 500, "internal_error", "x-request-id"),
]
LATER = [
    (NumericalError("NaN in logits"), 500, "numerical", "NaN in logits"),
    (BackendError("the device was lost"), 500, "backend", "lost"),
    (MemoryError("1 GB"), 503, "out_of_memory", "1 GB"),
    (TooLarge("2 rows were asked for at once"), 400, "too_large", "2 rows"),
    (DeadlineExceeded("not done within 5 s"), 504, "deadline", "5 s"),
    (Cancelled("by the model"), 503, "stopping", "stopping"),
]


@pytest.fixture(params=["draw", "chat"])
def ask(request, scripted_server):
    return getattr(scripted_server, request.param)


@pytest.mark.parametrize(("error", "status", "code", "said"), AT_SUBMIT, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_taken(scripted, ask, stream, error, status, code, said):
    scripted.error = error
    answer = ask(stream=stream)
    assert answer.status == status and answer.error["code"] == code and said in answer.error["message"]
    assert answer.error["type"] == {400: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    if isinstance(error, Busy):
        assert answer.headers["retry-after"] == "3"


PATHS = {
    "/v1/images/generations": b'{"prompt": "a"%s}',
    "/v1/chat/completions": b'{"messages": [{"role": "user", "content": "?"}]%s}',
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("error", "status", "code", "said"), LATER, ids=lambda value: type(value).__name__)
def test_what_fails_later(scripted, scripted_server, path, error, status, code, said):
    with scripted_server.socket() as stream:
        stream.sendall(scripted_server.request_bytes(path, PATHS[path] % b"", "connection: close"))
        scripted.next().fail(error)
        head, _, body = read_all(stream).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status and f'"code":"{code}"'.encode() in body and said.encode() in body
    assert (b"x-should-retry: false" in head) == (status == 504)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("error", "status", "code", "said"), LATER, ids=lambda value: type(value).__name__)
def test_what_fails_in_a_stream(scripted, scripted_server, path, error, status, code, said):
    with scripted_server.socket() as stream:
        stream.sendall(scripted_server.request_bytes(path, PATHS[path] % b', "stream": true', "connection: close"))
        request = scripted.next()
        request.say("something")
        request.fail(error)
        data = read_until(stream, b"0\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 200") and b'data: {"error":{"message":' in data and b"[DONE]" not in data
    assert f'"code":"{code}"'.encode() in data and data.endswith(b"0\r\n\r\n")


def test_openai_raises_it(openai, scripted, scripted_server):
    scripted.submit_answer = lambda messages, post, **settings: fail_at_once(scripted, messages, post, settings)

    def fail_at_once(scripted, messages, post, settings):
        handle = scripted._submit(messages, post, settings)
        request = scripted.next()
        request.say("one ")
        request.fail(NumericalError("NaN in logits"))
        return handle

    with openai.OpenAI(base_url=f"{scripted_server.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True)
        with pytest.raises(openai.APIError, match="NaN in logits") as raised:
            list(stream)
    assert raised.value.code == "numerical"


def test_half_a_bundle(scripted, scripted_server):
    import dataclasses

    scripted.manifest = dataclasses.replace(scripted.manifest, tasks=("understanding",))
    answer = scripted_server.draw()
    assert answer.status == 400 and "for understanding only, not for generation" in answer.error["message"]
    scripted.manifest = dataclasses.replace(scripted.manifest, tasks=("generation",))
    assert "not for understanding" in scripted_server.chat().error["message"]


def test_faults_are_written_down_with_their_reason(scripted, scripted_server, caplog):
    caplog.set_level("INFO", "janus_runtime.serve")
    scripted.error = RuntimeError("a reason that nobody outside should see")
    answer = scripted_server.draw()
    assert "reason that" not in answer.error["message"]
    assert any(record.exc_info and "a reason that" in str(record.exc_info[1]) for record in caplog.records)
