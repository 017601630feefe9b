"""Who may ask."""

import pytest

from tests.runtime.serve.conftest import serving

KEY = "secret-key-of-the-tests"
PATHS = ["/v1/models", "/metrics", "/v1/images/generations", "/v1/chat/completions", "/v1/images/edits", "/nothing"]


@pytest.fixture(scope="module")
def closed(model):
    with serving(model, api_key=KEY, allowed_hosts=("janus.example.com",), cors_origins=("https://chat.example.com",)) as server:
        yield server


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xff\xfe"])
def test_without_the_key_nothing_is_to_be_had(closed, path, given):
    answer = closed.ask("GET", path, headers={} if given is None else {"authorization": given})
    assert answer.status == 401 and answer.error["type"] == "authentication_error" and KEY not in answer.error["message"]
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/openapi.json"])
def test_what_is_open(closed, path):
    assert closed.get(path).status == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_with_the_key(closed, scheme):
    assert closed.get("/v1/models", authorization=f"{scheme} {KEY}").status == 200
    assert closed.draw({"authorization": f"{scheme} {KEY}"}).status == 200


def test_the_document_says_where_a_key_is_needed(closed):
    document = closed.get("/openapi.json").json
    assert document["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
    assert "security" not in document["paths"]["/health"]["get"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:80", "[::1]"])
def test_our_own_names(server, host):
    assert server.get("/health", host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example.com", "localhost.evil.com", "10.0.0.1:8000", "", "[::2]", "localhost@evil.com"])
def test_other_names(server, host):
    answer = server.get("/health", host=host)
    assert answer.status == 403 and answer.error["code"] == "host_not_allowed" and "--allowed-host" in answer.error["message"]


def test_names_that_were_allowed(closed, scripted):
    assert closed.get("/health", host="janus.example.com:443").status == 200
    with serving(scripted, allowed_hosts=("*",)) as server:
        assert server.get("/health", host="evil.example.com").status == 200


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "http://localhost:1", "http://[", "file://", "http://127.0.0.1"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/images/generations", "/health"])
def test_pages_of_others(server, origin, path):
    for method in ("GET", "POST", "OPTIONS"):
        answer = server.ask(method, path, headers={"origin": origin, "content-type": "application/json"})
        assert answer.status == 403 and answer.error["code"] == "origin_not_allowed"
        assert "access-control-allow-origin" not in answer.headers


def test_our_own_page(server):
    assert server.draw({"origin": server.url}).status == 200


def test_a_proxy_may_end_tls(closed):
    headers = {"host": "janus.example.com", "origin": "https://janus.example.com"}
    assert closed.get("/health", **headers).status == 200


def test_pages_that_were_allowed(closed):
    origin = "https://chat.example.com"
    asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    answer = closed.ask("OPTIONS", "/v1/chat/completions", headers=asked)
    assert answer.status == 204 and answer.headers["access-control-allow-origin"] == origin
    assert "authorization" in answer.headers["access-control-allow-headers"]
    answer = closed.get("/v1/models", origin=origin, authorization=f"Bearer {KEY}")
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == origin and "origin" in answer.headers["vary"].lower()
    assert closed.get("/v1/models", origin=origin).status == 401


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("/v1/images/generations", "text/plain"),
        ("/v1/images/generations", None),
        ("/v1/images/generations", "application/x-www-form-urlencoded"),
        ("/v1/chat/completions", "multipart/form-data; boundary=x"),
        ("/v1/chat/completions", "application/jsonp"),
        ("/v1/images/edits", "application/json"),
    ],
)
def test_content_types_that_any_page_may_send(server, path, given):
    answer = server.ask("POST", path, b'{"prompt": "a"}', {"content-type": given} if given else {})
    assert answer.status == 415 and answer.error["code"] == "unsupported_media_type" and "expected" in answer.error["message"]


def test_a_charset_is_no_other_content_type(server):
    answer = server.ask("POST", "/v1/images/generations", b'{"prompt": "a"}', {"content-type": "Application/JSON; charset=utf-8"})
    assert answer.status == 200


def test_more_requests_than_the_server_takes(scripted):
    with serving(scripted, max_requests=1) as server:
        with server.socket() as stream:
            stream.sendall(server.request_bytes("/v1/images/generations", b'{"prompt": "a"}'))
            request = scripted.next()
            answer = server.draw()
            assert answer.status == 429 and int(answer.headers["retry-after"]) > 0
            request.draw()
            request.finish()
            assert stream.recv(12) == b"HTTP/1.1 200"


def test_no_key_is_shown(settings):
    assert KEY not in repr(settings(api_key=KEY))
