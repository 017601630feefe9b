"""Clients that mean no good, many of them: the server goes on, and keeps nothing of them."""

import base64
import io
import json
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from testing.picture_bytes import png_chunk
from tests.runtime.serve.http_client import HttpClient

PROMPT = {"prompt": "a red circle", "seed": 1}


def private_mb(pid):
    """Of a process, what was paged out included."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "VmSwap")) / 1024


def junk(rng):
    """A request that should be refused, or nonsense on the wire."""
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(400)))
    body = rng.choice(
        [
            b"{", b"[]", b"null", b'{"prompt": 5}', b'{"prompt": ""}', b'{"prompt": "x", "n": 99}', b'{"prompt": "x", "size": "7x9"}',
            b'{"messages": []}', b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]}',
            b'{"prompt": "' + b"x" * rng.randrange(50_000) + b'", "top_p": 7}', b"\xff\xfe", b'{"prompt": "\\ud800"}',
        ]
    )  # fmt: skip
    path = rng.choice(
        ["/v1/images/generations", "/v1/chat/completions", "/v1/images/edits", "/v1/none", "/%00", "/page/../app.py", "/metrics"]
    )
    method = rng.choice(["POST", "POST", "POST", "GET", "PUT", "BREW"])
    length = len(body) if kind < 5 else rng.randrange(2 * len(body) + 1)
    return head_of(f"{method} {path}", f"Content-Length: {length}\r\nConnection: close") + body


def head_of(begin, fields):
    return f"{begin} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{fields}\r\n\r\n".encode()


def send(address, data, read=True):
    try:
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while read and client.recv(65536):
                pass
    except OSError:
        pass  # It hung up first.


def bomb():
    """A PNG of 30,000 by 30,000 pixels in a few kB."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000)) + png_chunk(b"IEND", b"")


def photo_question(content):
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]
    return {"model": "janus", "messages": [{"role": "user", "content": parts}], "max_tokens": 4}


def huge(address):
    """100 MB that nobody asked for, with and without its length said before."""
    begin, body = "POST /v1/images/generations", b"x" * 100_000_000
    send(address, head_of(begin, f"Content-Length: {len(body)}") + body)
    send(address, head_of(begin, "Transfer-Encoding: chunked") + f"{len(body):x}\r\n".encode() + body)


def vanish(address, rng):
    """Asks for a stream and goes away in the middle of it."""
    body = b'{"prompt": "a red circle", "stream": true, "partial_images": 3, "progress": true}'
    try:
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(head_of("POST /v1/images/generations", f"Content-Length: {len(body)}") + body)
            client.recv(rng.randrange(1, 3000))
    except OSError:
        pass


def drip(address):
    """A request whose head comes a byte at a time."""
    try:
        with socket.create_connection(address, timeout=20) as client:
            for character in b"GET /health HTTP/1.1\r\nX-Slow: " + b"x" * 40:
                client.send(bytes([character]))
                time.sleep(0.3)
    except OSError:
        pass


def bad_and_good(server, count, seed):
    """`count` bad requests from 8 clients, beside slow ones, huge ones and some that want a picture."""
    rng, left, lock = random.Random(seed), [count], threading.Lock()

    def work(own):
        while True:
            with lock:
                left[0] -= 1
                if left[0] < 0:
                    return
            if own.random() < 0.02:
                vanish(server.address, own)
            else:
                send(server.address, junk(own))

    threads = [threading.Thread(target=work, args=(random.Random(rng.random()),)) for _ in range(8)]
    threads += [threading.Thread(target=drip, args=(server.address,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert server.ask("POST", "/v1/images/generations", PROMPT).status in (200, 429)
    assert server.ask("POST", "/v1/chat/completions", photo_question(bomb())).status == 400
    huge(server.address)
    for thread in threads:
        thread.join()
    while any(server.gauge(name) for name in ("janus_num_requests_running", "janus_num_requests_waiting", "janus_rows")):
        time.sleep(0.01)


class Served(HttpClient):
    def gauge(self, name):
        return float(re.search(rf"^{name}\{{.*}} (\S+)$", self.get("/metrics").body.decode(), re.M)[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="private memory is read from /proc, which Linux has")
def test_ten_thousand_bad_requests_leave_nothing_behind():
    """Junk, bombs, bodies of 100 MB, clients that send a byte at a time and clients that vanish, beside ones that want a picture."""
    options = ["--json", "--quiet", "--backend", "cpu", "--port", "0", "--max-rows", "8", "--max-queue", "16", "--header-timeout", "5"]
    command = [sys.executable, "-m", "janus_runtime.cli", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            server = Served(json.loads(process.stdout.readline())["url"])
            expected = server.ask("POST", "/v1/images/generations", PROMPT).json["data"]
            bad_and_good(server, 2000, 1)
            before = private_mb(process.pid)
            bad_and_good(server, 10_000, 2)
            after = private_mb(process.pid)
            assert server.ask("POST", "/v1/images/generations", PROMPT).json["data"] == expected
            assert after < 1.05 * before, (before, after)
        finally:
            process.terminate()
            assert process.wait(60) == 0


def test_a_bomb_and_a_photo_that_is_none(server):
    for content in (bomb(), b"\x89PNG\r\n\x1a\n" + b"x" * 100, b"GIF89a", b""):
        answer = server.ask("POST", "/v1/chat/completions", photo_question(content))
        assert answer.status == 400 and answer.error["message"]
    with Image.new("RGB", (9, 9), "red") as image:
        file = io.BytesIO()
        image.save(file, "PNG")
    assert server.ask("POST", "/v1/chat/completions", photo_question(file.getvalue())).status == 200
