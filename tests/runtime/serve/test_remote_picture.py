"""Pictures from other hosts: which addresses may be asked, and what may come."""

import http.server
import io
import socket
import threading

import pytest
from PIL import Image

from tests.runtime.serve.conftest import serving
from tests.runtime.serve.test_chat import image_part


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "192.0.2.1", "198.18.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    from janus_runtime.serve.remote_picture import is_public

    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_that_are_public(address):
    from janus_runtime.serve.remote_picture import is_public

    assert is_public(address)


def png():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


class Host(http.server.BaseHTTPRequestHandler):
    """A host of pictures, some of which are none."""

    def do_GET(self):
        self.server.asked.append(self.headers["host"])
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "/picture.png")
            self.end_headers()
            return
        body = {"/picture.png": png(), "/page": b"<!doctype html>", "/long": b"\x89PNG" + b"x" * 100_000}.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def host():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def fetching(model):
    with serving(model, allow_remote_images=True, max_body_bytes=50_000) as server:
        yield server


def ask(server, url):
    return server.chat(messages=[{"role": "user", "content": [image_part(url=url), {"type": "text", "text": "?"}]}], max_tokens=2)


@pytest.fixture
def loopback_is_public(monkeypatch):
    from janus_runtime.serve import remote_picture

    monkeypatch.setattr(remote_picture, "is_public", lambda address: True)


def test_a_picture_is_fetched(host, fetching, loopback_is_public):
    answer = ask(fetching, f"http://localhost:{host.server_port}/picture.png")
    assert answer.status == 200 and answer.json["usage"]["prompt_tokens_details"]["image_tokens"] == 64
    assert host.asked[-1] == f"localhost:{host.server_port}"


@pytest.mark.parametrize(
    ("path", "said"),
    [("/moved", "status 302"), ("/none", "status 404"), ("/page", "is a web page"), ("/long", "more than 50,000 bytes")],
)
def test_what_is_no_picture(host, fetching, loopback_is_public, path, said):
    answer = ask(fetching, f"http://127.0.0.1:{host.server_port}{path}")
    assert answer.status == 400 and said in answer.error["message"]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433"])
def test_our_own_network_is_not_reached(host, fetching, name):
    host.asked.clear()
    answer = ask(fetching, f"http://{name}:{host.server_port}/picture.png")
    assert answer.status == 400 and host.asked == []


def test_one_private_address_of_several_is_enough(monkeypatch):
    from janus_runtime.serve.api_error import ApiError
    from janus_runtime.serve.remote_picture import fetch_picture

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **settings: found)
    with pytest.raises(ApiError, match="not a public address"):
        fetch_picture("http://example.com/a.png", 100)


@pytest.mark.parametrize("url", ["ftp://example.com/a.png", "http://", "http://u:p@example.com/", "http://[", "http://a:99999/", "x", ""])
def test_addresses_that_are_none(fetching, url):
    answer = ask(fetching, url or " ")
    assert answer.status == 400 and "image_url" in answer.error["message"]


def test_a_host_that_answers_slowly_is_left(monkeypatch, loopback_is_public):
    from janus_runtime.serve import remote_picture
    from janus_runtime.serve.api_error import ApiError

    monkeypatch.setattr(remote_picture, "_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def drip():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"x: y\r\n")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(ApiError, match="could not be fetched"):
            remote_picture.fetch_picture(f"http://127.0.0.1:{listener.getsockname()[1]}/a.png", 1000)
        stop.set()
        thread.join()
