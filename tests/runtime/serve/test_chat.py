"""What a conversation may be, and what is said of what it may not."""

import base64
import io

import pytest
from PIL import Image

from tests.runtime.serve.conftest import serving


def text(role, content="hello"):
    return {"role": role, "content": content}


def image_part(data=None, url=None):
    if data is None:
        file = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(file, "PNG")
        data = file.getvalue()
    url = url or f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([text("assistant")], "of assistant; expected a system message or none"),
        ([text("user"), text("user")], "of user, user"),
        ([text("user"), text("assistant")], "of user, assistant"),
        ([text("user"), text("system"), text("user")], "of user, system, user"),
        ([text("system"), text("developer"), text("user")], "of system, system, user"),
        ([text("system")], "of system"),
        ([text("tool")], "'system', 'developer', 'user' or 'assistant'"),
        ([text("system", [image_part()]), text("user")], "messages.0 is of system and has a picture"),
        ([text("user"), text("assistant", [image_part()]), text("user")], "messages.1 is of assistant"),
        ([], "at least 1"),
        ("hello", "list"),
        ([text("user", None)], "messages.0.content"),
        ([text("user", [{"type": "audio"}])], "'text'"),
        ([text("user", [{"type": "text"}])], "messages.0.content.0.text is missing"),
        ([text("user", [{"type": "image_url"}])], "image_url is missing"),
        ([text("user", [{"type": "image_url", "image_url": "data:,"}])], "dictionary"),
        ([text("user", "")], "empty"),
        ([text("user", "x" * 32_001)], "32,001"),
        ([text("user", "word " * 2000)], "limit"),
        ([text("user", [image_part()] * 17)], "the number of pictures is 17"),
        ([text("user", [image_part(b"junk"), {"type": "text", "text": "?"}])], "picture 0 of messages.0 cannot be used as an image"),
        ([text("user", [image_part(url="data:image/png,abc")])], "without base64"),
        ([text("user", [image_part(url="data:image/png;base64,a$b=")])], "damaged"),
        ([text("user", [image_part(url="https://example.com/a.png")])], "--allow-remote-images"),
        ([text("user", [image_part(url="file:///etc/passwd")])], "no data: URL"),
    ],
)
def test_conversations_that_cannot_be_answered(server, messages, said):
    answer = server.chat(messages=messages)
    assert answer.status == 400 and said in answer.error["message"]


def test_a_conversation_reaches_the_model_in_its_order(scripted, scripted_server):
    red, blue = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    parts = []
    for image in (red, blue):
        file = io.BytesIO()
        image.save(file, "PNG")
        parts.append(image_part(file.getvalue()))
    messages = [
        text("developer", [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]),
        text("user", [parts[0], {"type": "text", "text": "What?"}, parts[1]]),
        text("assistant", "Two."),
        text("user", "Why?"),
    ]
    scripted.error = ValueError("enough")
    seen = []
    scripted.submit_answer = lambda messages, **settings: seen.append((messages, settings)) or scripted._submit(messages, None, settings)
    scripted_server.chat(messages=messages, max_tokens=9, max_completion_tokens=4, temperature=0.5, top_p=0.5, top_k=3, seed=11)
    ((got, settings),) = seen
    assert [(each.role, each.text) for each in got] == [
        ("system", "Be\nbrief."),
        ("user", "What?"),
        ("assistant", "Two."),
        ("user", "Why?"),
    ]
    assert [image.getpixel((0, 0)) for image in got[1].images] == [(255, 0, 0), (0, 0, 255)]
    assert [len(each.images) for each in got] == [0, 2, 0, 0]
    settings.pop("post")
    assert settings == {"max_tokens": 4, "temperature": 0.5, "top_p": 0.5, "top_k": 3, "seed": 11, "deadline_s": 3600.0}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"frequency_penalty": -1}, "frequency_penalty"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {"a": 1}}, "web_search_options"),
        ({"n": 11}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": 3}, "stop"),
        ({"temperature": "warm"}, "temperature"),
        ({"stream_options": True}, "stream_options"),
    ],
)
def test_fields_that_cannot_be_honoured(server, fields, param):
    answer = server.chat(**fields)
    assert answer.status == 400 and answer.error["param"] == param and param in answer.error["message"]


def test_fields_that_change_nothing_are_taken(server):
    harmless = {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logprobs": False, "presence_penalty": 0}
    more = {"frequency_penalty": 0.0, "modalities": ["text"], "stop": None, "user": "u", "store": False, "metadata": {}, "n": None}
    assert server.chat(max_tokens=2, **harmless, **more).status == 200


def test_longer_than_the_model_ends_with_the_model(server):
    assert server.chat(max_tokens=10**9).status == 200


def test_pixels_of_all_pictures_together(scripted):
    with serving(scripted, max_pixels=100) as server:
        answer = server.chat(messages=[text("user", [image_part(), image_part()])])
    assert answer.status == 400 and "128 pixels; this server takes 100" in answer.error["message"]


@pytest.mark.parametrize(("asked", "given"), [({}, 5), ({"max_tokens": 3}, 3)])
def test_the_servers_own_limit(scripted, asked, given):
    with serving(scripted, max_tokens=5) as server:
        assert server.chat(max_tokens=6).error["message"] == "max_tokens is 6; this server takes 5 at most"
        scripted.error = ValueError("enough")
        seen = []
        scripted.submit_answer = lambda messages, **settings: seen.append(settings) or scripted._submit(messages, None, settings)
        server.chat(**asked)
        assert seen[0]["max_tokens"] == given


def test_text_is_held_back_while_it_may_begin_a_stop_string(scripted, scripted_server):
    with scripted_server.socket() as stream:
        body = b'{"messages": [{"role": "user", "content": "?"}], "stream": true, "stop": "END", "stream_options": {"include_usage": true}}'
        stream.sendall(scripted_server.request_bytes("/v1/chat/completions", body, "connection: close"))
        request = scripted.next()
        request.say("one E", "N", "d two EN", "D three")
        data = b""
        while more := stream.recv(65536):
            data += more
    assert request.handle.cancelled.is_set()
    for shown in (b'"content":"one "', b'"content":"ENd two "', b'"finish_reason":"stop"', b"[DONE]"):
        assert shown in data
    assert b"three" not in data and b'"completion_tokens":5' in data
