"""Metrics and the log: what they count, and what they leave out."""

import json
import logging
import re
import threading

import pytest

from janus_runtime.errors import NumericalError
from tests.runtime.serve.conftest import serving


def values(server):
    """`name{labels}` -> value; without `model_name`, which all have."""
    text = server.get("/metrics").body.decode()
    found = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.M)
    return {
        name + "{" + ",".join(p for p in labels.split(",") if "model_name" not in p) + "}": float(value) for name, labels, value in found
    }


def test_names_are_those_of_vllm_with_our_prefix(fresh_server, scripted):
    found = values(fresh_server)
    assert found["janus_num_requests_running{}"] == 1 and found["janus_num_requests_waiting{}"] == 0
    assert found["janus_rows{}"] == 2 and found["janus_max_rows{}"] == 16 and found["janus_kv_cache_max_bytes{}"] == 4000
    assert found["janus_steps_total{}"] == 10 and found["janus_stepped_rows_total{}"] == 20 and found["janus_reused_tokens_total{}"] == 40
    text = fresh_server.get("/metrics").body.decode()
    families = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    assert {
        "janus_request_queue_time_seconds", "janus_time_to_first_token_seconds", "janus_inter_token_latency_seconds",
        "janus_e2e_request_latency_seconds", "janus_prompt_tokens_total", "janus_generation_tokens_total", "janus_images_total",
        "janus_request_success_total",
    } <= families  # fmt: skip
    assert all(name.startswith("janus_") for name in families) and 'model_name="janus-nano"' in text


def test_what_requests_count(model):
    with serving(model) as server:
        assert server.draw(n=2).status == 200
        assert server.chat(max_tokens=2, n=2).status == 200
        found = values(server)
    image, chat = '{kind="image"}', '{kind="chat"}'
    assert found[f"janus_images_total{image}"] == 2 and found[f"janus_generation_tokens_total{image}"] == 128
    assert found[f"janus_generation_tokens_total{chat}"] == 4 and found[f"janus_prompt_tokens_total{chat}"] > 4
    assert found['janus_request_success_total{finished_reason="stop",kind="image"}'] == 1
    assert found['janus_request_success_total{finished_reason="length",kind="chat"}'] == 2
    for kind, parts in ((image, 1), (chat, 2)):
        assert found[f"janus_request_queue_time_seconds_count{kind}"] == parts
        assert found[f"janus_time_to_first_token_seconds_count{kind}"] == parts
        assert found[f"janus_inter_token_latency_seconds_count{kind}"] == 2
        assert found[f"janus_e2e_request_latency_seconds_count{kind}"] == 1
    assert found['janus_http_requests_total{path="/v1/images/generations",status="200"}'] == 1


def test_ends_that_are_none(scripted, fresh_server):
    with fresh_server.socket() as stream:
        stream.sendall(fresh_server.request_bytes("/v1/images/generations", b'{"prompt": "a"}'))
        request = scripted.next()
    assert request.handle.cancelled.wait(60)
    scripted.submit_drawing = lambda prompt, n, post, **settings: failing(scripted, prompt, post, settings)
    assert fresh_server.draw().status == 500
    scripted.submit_drawing = None  # which raises
    assert fresh_server.draw().status == 500
    for path in ("/a", "/b", "/v1/images/generations"):
        fresh_server.get(path)
    found = values(fresh_server)
    assert found['janus_request_success_total{finished_reason="abort",kind="image"}'] == 1
    assert found['janus_request_success_total{finished_reason="error",kind="image"}'] == 1
    assert found["janus_e2e_request_latency_seconds_count" + '{kind="image"}'] == 2
    assert found['janus_http_requests_total{path="other",status="404"}'] == 2
    assert found['janus_http_requests_total{path="/v1/images/generations",status="405"}'] == 1
    assert found['janus_http_requests_total{path="/v1/images/generations",status="499"}'] == 1


def failing(scripted, prompt, post, settings):
    handle = scripted._submit(prompt, post, settings)
    scripted.next().fail(NumericalError("NaN"))
    return handle


def test_a_request_has_an_id(server):
    assert server.get("/health", **{"x-request-id": "mine-1.2_3"}).headers["x-request-id"] == "mine-1.2_3"
    for bad in ("", "a b", "x" * 129, "\xe4"):
        assert server.get("/health", **{"x-request-id": bad}).headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("format", ["json", "text"])
def test_the_log_has_a_line_for_each_request_and_no_secrets(model, format, capsys, monkeypatch):
    from janus_runtime.serve.log import set_up_log

    for name in ("janus_runtime", "uvicorn"):
        logger = logging.getLogger(name)
        for attribute in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logger, attribute, getattr(logger, attribute))
    set_up_log(format, quiet=False)
    prompt, key = "a red circle of secrets", "key-of-the-log"
    with serving(model, api_key=key) as server:
        headers = {"authorization": f"Bearer {key}", "x-request-id": "the-id"}
        assert server.draw(headers, prompt=prompt, n=2).status == 200
        assert server.chat(headers, stream=True, max_tokens=2).status == 200
        server.get("/no%1b[31m%0aevil?token=abc", **headers)
    lines = [line for line in capsys.readouterr().err.splitlines() if "the-id" in line]
    assert len(lines) == 3
    for line in lines:
        assert key not in line and "secrets" not in line and "abc" not in line and "\x1b" not in line
    if format == "json":
        drawn, said, _ = map(json.loads, lines)
        assert (drawn["method"], drawn["path"], drawn["status"]) == ("POST", "/v1/images/generations", 200)
        assert drawn["images"] == 2 and drawn["completion_tokens"] == 128 and drawn["finished_reason"] == "stop"
        assert said["completion_tokens"] == 2 and said["finished_reason"] == "length" and said["queue_ms"] >= 0 and said["ms"] > 0
        assert drawn["time"].endswith("Z") and drawn["client_gone"] is False
    else:
        assert " POST /v1/images/generations 200 " in lines[0] and "images=2" in lines[0]


def test_the_log_knows_who_went_away(scripted, fresh_server, caplog):
    caplog.set_level("INFO", "janus_runtime.serve")
    for extra in (b"", b', "stream": true'):
        with fresh_server.socket() as stream:
            stream.sendall(fresh_server.request_bytes("/v1/images/generations", b'{"prompt": "a"' + extra + b"}"))
            request = scripted.next()
        assert request.handle.cancelled.wait(60)
    while len(requests := [record.request for record in caplog.records if hasattr(record, "request")]) < 2:
        threading.Event().wait(0.01)
    assert [(each["status"], each["client_gone"]) for each in requests] == [(499, True)] * 2
