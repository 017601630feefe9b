"""The command in a process of its own: how it starts, and how signals end it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from janus_runtime.errors import JanusError
from tests.runtime.serve.conftest import serving
from tests.runtime.serve.http_client import HttpClient, read_until

ROOT = Path(__file__).resolve().parents[3]
# `janus_runtime.cli`, once Janus has what a server needs.
COMMAND = [sys.executable, "-m", "janus_runtime.cli"]
LONG = b'{"prompt": "a red circle", "n": 10, "size": "8x8"}'


@contextmanager
def process(*options, verb="serve", **environment):
    """`janus-rt serve` on a free port, as a client; `.process` is the process. Its stderr goes to a pipe that is read at its end."""
    command = [*COMMAND, verb, "--json", "--backend", "cpu", *options] + (["--port", "0"] if verb == "serve" else [])
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            said = running.stdout.readline()
            assert said, running.stderr.read()
            client = HttpClient(json.loads(said)["url"])
            client.said, client.process = json.loads(said), running
            yield client
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_finish_what_it_has_begun(number):
    with process("--max-rows", "2") as server:
        with server.socket() as stream:
            stream.sendall(server.request_bytes("/v1/images/generations", LONG, "connection: close"))
            while not running(server):
                time.sleep(0.01)
            server.process.send_signal(number)
            while server.get("/ready").status == 200:
                time.sleep(0.01)
            refused = server.draw()
            assert refused.status == 503 and refused.error["code"] == "stopping" and refused.headers["retry-after"]
            assert server.get("/health").status == 200
            answer = read_until(stream, b"usage")
        assert answer.startswith(b"HTTP/1.1 200") and answer.count(b'"seed":') == 10
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.process.stderr.read()


def running(server):
    return b"janus_num_requests_running" in (text := server.get("/metrics").body) and b'running{model_name="janus-nano"} 1' in text


def test_after_the_grace_what_runs_ends_with_an_error():
    # Two rows at once, so that ten pictures outlast the grace tenfold however late the signal comes.
    with process("--max-rows", "2", "--grace", "0.01") as server, server.socket() as stream:
        stream.sendall(server.request_bytes("/v1/images/generations", LONG, "connection: close"))
        while not running(server):
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        answer = read_until(stream, b"}}")
        assert answer.startswith(b"HTTP/1.1 503") and b'"code":"stopping"' in answer
        assert server.process.wait(60) == 0


def test_a_second_signal_ends_it_at_once():
    with process("--grace", "600") as server, server.socket() as stream:
        # A request whose body never comes.
        stream.sendall(
            b"POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
        )
        while server.process.poll() is None and server.get("/ready").status == 200:
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == -signal.SIGTERM


def test_an_idle_server_ends_though_a_connection_is_open():
    with process() as server, server.socket() as stream:
        stream.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        read_until(stream, b"}")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        log = server.process.stderr.read()
    assert "serving janus-nano, fp32, cpu at http://127.0.0.1:" in log and " GET /health 200 " in log
    assert re.search(r"16 rows at once; keys and values take \d+\.\d kB a token, \d+\.\d\d GB at most\n", log)


def test_the_key_comes_from_the_environment_or_a_file(tmp_path):
    (tmp_path / "key").write_text("of-the-file\n")
    with process("--quiet", JANUS_API_KEY="of-the-environment") as server:
        assert server.get("/v1/models", authorization="Bearer of-the-environment").status == 200
        assert server.get("/v1/models", authorization="Bearer of-the-file").status == 401
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0 and server.process.stderr.read() == ""
    with process("--api-key-file", str(tmp_path / "key"), "--log-format", "json", JANUS_API_KEY="of-the-environment") as server:
        assert server.get("/v1/models", authorization="Bearer of-the-file").status == 200
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        assert all(json.loads(line)["time"] for line in server.process.stderr.read().splitlines())


def test_ui_opens_the_page(tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened.part && mv {tmp_path}/opened.part {tmp_path}/opened\n')
    browser.chmod(0o755)
    with process(verb="ui", BROWSER=f"{browser} %s") as server:
        while not (tmp_path / "opened").exists():
            time.sleep(0.01)
        assert (tmp_path / "opened").read_text().strip() == server.said["url"]
        assert b"<!doctype html>" in server.get("/").body


def test_nobody_else_may_have_the_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run([*COMMAND, "serve", "--port", str(port)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and f"cannot listen on 127.0.0.1, port {port}" in result.stderr and "--port" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_host_that_is_none(settings):
    from janus_runtime.serve.run import listen

    with pytest.raises(JanusError, match="cannot listen on no.such.host.invalid"):
        listen(settings(host="no.such.host.invalid"))


@pytest.mark.parametrize(
    ("host", "shown"),
    [("0.0.0.0", "http://127.0.0.1:"), ("localhost", "http://127.0.0.1:"), ("::1", "http://[::1]:"), ("::", "http://[::1]:")],
)
def test_addresses(settings, host, shown):
    from janus_runtime.serve.run import address_of, listen

    try:
        listener = listen(settings(host=host, port=0))
    except JanusError:
        pytest.skip(f"this machine cannot listen on {host}")
    with listener:
        assert address_of(listener).startswith(shown) or host == "localhost"


@pytest.mark.parametrize("key", ["", "a-key"])
def test_a_server_that_all_can_reach_without_a_key_warns(key):
    with process("--host", "0.0.0.0", JANUS_API_KEY=key) as server:
        assert server.get("/health").status == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert ("ANYBODY who reaches 0.0.0.0" in server.process.stderr.read()) == (not key)


def test_addresses_are_names_enough_where_all_can_reach_it(scripted):
    with serving(scripted, host="0.0.0.0") as server:
        assert server.get("/health", host="192.168.7.7:80").status == 200
        assert server.get("/health", host="evil.example.com").status == 403
