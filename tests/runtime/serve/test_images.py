"""What a request for pictures may ask, and what is said of what it may not."""

import base64
import io

import pytest
from PIL import Image

import janus_runtime
from tests.runtime.serve.conftest import serving
from tests.runtime.serve.http_client import multipart


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"size": "64x32"}, "size", "expected auto, 64x64"),
        ({"size": "1025x1025"}, "size", "1024x1024"),
        ({"size": "0x0"}, "size", "1x1"),
        ({"size": "64"}, "size", "pattern"),
        ({"size": "64x64\n"}, "size", ""),
        ({"size": 64}, "size", "string"),
        ({"response_format": "url"}, "response_format", "use b64_json"),
        ({"response_format": {"type": "b64_json"}}, "response_format", "b64_json"),
        ({"output_format": "gif"}, "output_format", "png, jpeg or webp"),
        ({"output_format": "bmp"}, "output_format", "'png', 'jpeg' or 'webp'"),
        ({"output_format": "png", "output_compression": 50}, "output_compression", "leave it out"),
        ({"output_format": "jpeg", "output_compression": 101}, "output_compression", "100"),
        ({"background": "transparent"}, "background", "opaque"),
        ({"negative_prompt": "blue"}, "negative_prompt", "say what you want"),
        ({"stream": True, "n": 2}, "n", "one at a time"),
        ({"stream": True, "partial_images": 4}, "partial_images", "3"),
        ({"partial_images": 1}, "partial_images", "stream"),
        ({"n": 0}, "n", "1"),
        ({"n": 11}, "n", "this server takes 10"),
        ({"n": "2"}, "n", "integer"),
        ({"n": True}, "n", "integer"),
        ({"prompt": ""}, "prompt", "1 character"),
        ({"prompt": "a" * 32_001}, "prompt", "32,000"),
        ({"prompt": ["a"]}, "prompt", "string"),
        ({"prompt": None}, "prompt", "prompt is missing"),
        ({"seed": -2}, "seed", "-1"),
        ({"seed": 1 << 64}, "seed", "18446744073709551616"),
        ({"seed": (1 << 64) - 1, "n": 2}, None, "seed"),
        ({"seed": 1.5}, "seed", "integer"),
        ({"guidance_scale": 2, "cfg_weight": 3}, "guidance_scale", "differ"),
        ({"guidance_scale": 1e300}, "guidance_scale", "1000"),
        ({"temperature": -1}, "temperature", "0"),
        ({"temperature": 1e-9}, None, "temperature"),
        ({"top_p": 0}, "top_p", "0"),
        ({"top_k": -1}, "top_k", "0"),
        ({"steps": 3}, None, "JanusFlow"),
        ({"solver": "ab2"}, None, "a solver is JanusFlow's: leave it out"),
        ({"solver": "heun"}, "solver", "'euler' or 'ab2'"),
        ({"prompt": "a \ud800"}, "prompt", "unicode"),
    ],
)
def test_what_cannot_be_drawn(server, fields, param, said):
    answer = server.draw(**fields)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error" and said in answer.error["message"]
    assert answer.error["param"] == param


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have(server, number):
    body = f'{{"prompt": "a", "temperature": {number}}}'.encode()
    answer = server.ask("POST", "/v1/images/generations", body, {"content-type": "application/json"})
    assert answer.status == 400 and answer.error["param"] in ("temperature", None)


def test_unknown_fields_nulls_and_what_changes_nothing_are_taken(server):
    ignored = {"quality": "hd", "style": "vivid", "moderation": "low", "user": "u", "background": "auto", "num_images": 3}
    nulls = dict.fromkeys(("n", "size", "seed", "stream", "output_format", "temperature", "guidance_scale", "negative_prompt", "top_p"))
    assert server.draw(model="gpt-image-1", **ignored, **nulls).status == 200


@pytest.mark.parametrize("size", ["auto", "64x64", "1x1", "1024x1024"])
def test_sizes(server, size):
    answer = server.draw(size=size).json
    expected = (64, 64) if size == "auto" else tuple(map(int, size.split("x")))
    assert Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))).size == expected
    assert answer["size"] == "x".join(map(str, expected))


def test_progress_is_told_where_it_was_asked_for(server):
    events = server.draw(stream=True, progress=True).events
    steps = [each for each in events if each["type"] == "janus.progress"]
    assert [each["step"] for each in steps] == list(range(1, 65)) and {each["total"] for each in steps} == {64}
    assert events[-1]["type"] == "image_generation.completed"
    assert [each["type"] for each in server.draw(stream=True).events] == ["image_generation.completed"]


def form(*more, image=b"", name="image"):
    file = io.BytesIO()
    Image.new("RGB", (30, 40), "blue").save(file, "JPEG")
    return multipart(("prompt", None, b"a red circle"), (name, "photo.jpg", image or file.getvalue()), *more)


@pytest.mark.parametrize("name", ["image", "image[]"])
def test_form_fields_are_read_as_those_of_json(server, name):
    body, headers = form(("n", None, b"2"), ("seed", None, b"7"), ("guidance_scale", None, b"2.5"), ("size", None, b"32x32"), name=name)
    answer = server.ask("POST", "/v1/images/edits", body, headers)
    assert answer.status == 200 and [each["seed"] for each in answer.json["data"]] == [7, 8] and answer.json["size"] == "32x32"


@pytest.mark.parametrize(
    ("more", "param", "said"),
    [
        ([("mask", "mask.png", b"x")], "mask", "leave it out"),
        ([("image", "other.jpg", b"x")], "image", "2 fields image"),
        ([("n", None, b"two")], "n", "integer"),
        ([("input_fidelity", None, b"high")], "input_fidelity", "low"),
        ([("image_weight", None, b"-1")], "image_weight", "0"),
    ],
)
def test_forms_that_cannot_be_used(server, more, param, said):
    answer = server.ask("POST", "/v1/images/edits", *form(*more))
    assert answer.status == 400 and answer.error["param"] == param and said in answer.error["message"]


@pytest.mark.parametrize("data", [b"no picture", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7"])
def test_files_that_are_no_picture(server, data):
    answer = server.ask("POST", "/v1/images/edits", *form(image=data))
    assert answer.status == 400 and answer.error["param"] == "image" and answer.error["message"].startswith("the image ")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data; boundary=edge"),
        (b"--edge\r\n", "multipart/form-data; boundary=edge"),
        (b"--edge\r\njunk\r\n\r\n", "multipart/form-data; boundary=edge"),
        (b"--edge--\r\n", "multipart/form-data"),
        (b"\0" * 1000, "multipart/form-data; boundary=" + "e" * 500),
    ],
)
def test_bodies_that_are_no_form(server, body, content_type):
    answer = server.ask("POST", "/v1/images/edits", body, {"content-type": content_type})
    assert answer.status == 400 and answer.error["message"]


def test_edits_are_off_unless_asked_for(scripted):
    with serving(scripted) as server:
        answer = server.ask("POST", "/v1/images/edits", *form())
    assert answer.status == 400 and "--edits" in answer.error["message"] and answer.error["code"] == "unsupported"


def test_a_solver_of_a_flow(bundles):
    with janus_runtime.load(bundles("tiny-flow"), backend="cpu") as flow, serving(flow) as server:
        answer = server.draw(prompt="a cat", seed=4, solver="ab2").json
        with Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))) as drawn:
            assert [drawn.text[key] for key in ("solver", "steps", "shift")] == ["ab2", "15", "2.0"]
            (expected,) = flow.generate("a cat", seed=4, solver="ab2")
            assert drawn.tobytes() == expected.image.tobytes()
        defaults = server.get("/v1/models").json["data"][0]["defaults"]
        assert (defaults["solver"], defaults["steps"], defaults["solvers"]) == ("euler", 30, {"euler": 30, "ab2": 15})


def test_a_model_of_ids_has_no_solver(server):
    defaults = server.get("/v1/models").json["data"][0]["defaults"]
    assert (defaults["solver"], defaults["steps"], defaults["solvers"]) == (None, None, None)
