"""Requests as Open WebUI forms them: its defaults, not OpenAI's."""

import base64
import io

from PIL import Image

from tests.runtime.serve.http_client import multipart


def test_pictures(server):
    answer = server.draw(model="janus-nano", n=1, size="512x512", response_format="b64_json", seed=3, guidance_scale=5)
    (entry,) = answer.json["data"]
    # It takes `url` where there is one, and refuses private addresses there.
    assert answer.status == 200 and not entry.get("url")
    assert Image.open(io.BytesIO(base64.b64decode(entry["b64_json"]))).size == (512, 512)


def test_a_model_that_is_named_like_openais(server):
    """Then it leaves response_format out."""
    assert "b64_json" in server.draw(model="gpt-image-1", n=1, size="1024x1024").json["data"][0]


def test_edits(server):
    file = io.BytesIO()
    Image.new("RGB", (20, 20), "blue").save(file, "PNG")
    fields = [("model", None, b"janus-nano"), ("prompt", None, b"a red circle"), ("n", None, b"1"), ("size", None, b"512x512")]
    for name in ("image", "image[]"):
        body, headers = multipart(*fields, ("response_format", None, b"b64_json"), (name, "image.png", file.getvalue()))
        answer = server.ask("POST", "/v1/images/edits", body, headers)
        assert answer.status == 200 and answer.json["size"] == "512x512"


def test_chat(server):
    """With the whole history, a picture in the last message, and a system prompt."""
    file = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    picture = [{"type": "text", "text": "And this?"}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [
        {"role": "system", "content": "You answer briefly."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": picture},
    ]
    answer = server.chat(model="janus-nano", messages=messages, stream=True, stream_options={"include_usage": True}, max_tokens=5)
    assert answer.status == 200 and answer.events[-1] == "[DONE]" and answer.events[-2]["usage"]["total_tokens"] > 0


def test_its_check_of_a_connection(server):
    assert [each["id"] for each in server.get("/v1/models", authorization="Bearer none").json["data"]] == ["janus-nano"]
