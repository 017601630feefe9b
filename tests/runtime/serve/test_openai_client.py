"""OpenAI's own client, which checks every answer against its types."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

PROMPT = "a red circle"


def picture(encoded):
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def data_url():
    """A picture that janus-nano says much of."""
    file, image = io.BytesIO(), Image.new("RGB", (64, 64), "grey")
    ImageDraw.Draw(image).ellipse((20, 20, 44, 44), "red")
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def question(*urls, text="What is it?"):
    return [{"role": "user", "content": [{"type": "text", "text": text}, *({"type": "image_url", "image_url": {"url": u}} for u in urls)]}]


def test_pictures_are_those_of_python(client, model):
    answer = client.images.generate(prompt=PROMPT, n=2, extra_body={"seed": 7})
    assert (answer.output_format, answer.size, answer.background, answer.quality) == ("png", "64x64", "opaque", None)
    assert [each.seed for each in answer.data] == [7, 8]
    for each, seed in zip(answer.data, (7, 8), strict=True):
        (expected,) = model.generate(PROMPT, seed=seed)
        drawn = picture(each.b64_json)
        assert np.array_equal(np.asarray(drawn), np.asarray(expected.image))
        assert drawn.text["prompt"] == PROMPT and drawn.text["seed"] == str(seed)
        assert drawn.text["model"] == answer.model == "janus-nano" and "cfg_weight" in drawn.text
    assert answer.usage.output_tokens == 2 * 64 and answer.usage.input_tokens_details.image_tokens == 0
    assert answer.usage.total_tokens == answer.usage.input_tokens + 128


@pytest.mark.parametrize("name", ["guidance_scale", "cfg_weight"])
def test_our_own_fields(client, model, name):
    settings = {"temperature": 0.5, "top_k": 20, "top_p": 0.9}
    answer = client.images.generate(prompt=PROMPT, extra_body={"seed": 3, name: 2.0, **settings})
    (expected,) = model.generate(PROMPT, seed=3, cfg_weight=2.0, **settings)
    assert np.array_equal(np.asarray(picture(answer.data[0].b64_json)), np.asarray(expected.image))


@pytest.mark.parametrize(("format", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_formats_and_sizes(client, format, name):
    answer = client.images.generate(prompt=PROMPT, size="96x96", output_format=format, response_format="b64_json", quality="high")
    drawn = picture(answer.data[0].b64_json)
    assert (drawn.format, drawn.size, answer.size, answer.output_format) == (name, (96, 96), "96x96", format)


def test_compression(client):
    def length(quality):
        answer = client.images.generate(
            prompt=PROMPT, size="256x256", output_format="jpeg", output_compression=quality, extra_body={"seed": 1}
        )
        return len(answer.data[0].b64_json)

    assert length(10) < length(95)


def test_a_random_seed_is_named_and_draws_the_same_again(client):
    first = client.images.generate(prompt=PROMPT, extra_body={"seed": -1}).data[0]
    second = client.images.generate(prompt=PROMPT, extra_body={"seed": first.seed}).data[0]
    assert first.b64_json == second.b64_json
    assert client.images.generate(prompt=PROMPT).data[0].seed != first.seed


def test_stream_of_a_picture(client):
    events = list(client.images.generate(prompt=PROMPT, stream=True, partial_images=2, size="32x32", extra_body={"seed": 5}))
    *partials, last = events
    assert [each.type for each in partials] == ["image_generation.partial_image"] * 2
    assert [each.partial_image_index for each in partials] == [0, 1]
    assert last.type == "image_generation.completed" and last.seed == 5 and last.usage.output_tokens == 64
    assert {picture(each.b64_json).size for each in events} == {(32, 32)} and {each.size for each in events} == {"32x32"}
    whole = client.images.generate(prompt=PROMPT, size="32x32", extra_body={"seed": 5})
    assert whole.data[0].b64_json == last.b64_json


def test_edit(client):
    file = io.BytesIO()
    Image.new("RGB", (50, 40), "blue").save(file, "PNG")
    answer = client.images.edit(image=("photo.png", file.getvalue()), prompt=PROMPT, size="auto", n=2, extra_body={"seed": 4})
    assert [each.seed for each in answer.data] == [4, 5] and answer.size == "64x64"
    events = list(client.images.edit(image=("photo.png", file.getvalue()), prompt=PROMPT, stream=True, partial_images=1))
    assert [each.type for each in events] == ["image_edit.partial_image", "image_edit.completed"]


def test_answer(client, model):
    drawn = model.generate(PROMPT, seed=7)[0].image
    file = io.BytesIO()
    drawn.save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    answer = client.chat.completions.create(model="janus-nano", messages=question(url, text="Describe this image."))
    said = model.describe(drawn)
    assert answer.choices[0].message.content == "".join(said) and answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert usage.prompt_tokens_details.image_tokens == 64 and usage.completion_tokens == len(said.text_ids)
    assert usage.prompt_tokens == 64 + usage.prompt_tokens_details.text_tokens


def test_stream_of_an_answer(client):
    asked = {"model": "janus-nano", "messages": question(data_url()), "seed": 1}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *texts, usage = chunks
    assert "".join(each.choices[0].delta.content or "" for each in texts) == whole.choices[0].message.content
    assert texts[0].choices[0].delta.role == "assistant" and texts[-1].choices[0].finish_reason == "stop"
    assert usage.choices == [] and all(each.usage is None for each in texts)
    # The same again: the whole prompt is there already.
    usage.usage.prompt_tokens_details.cached_tokens = whole.usage.prompt_tokens_details.cached_tokens
    assert usage.usage == whole.usage
    assert len({each.id for each in chunks}) == 1 and {each.object for each in chunks} == {"chat.completion.chunk"}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_length(client, name):
    answer = client.chat.completions.create(model="any", messages=question(data_url()), **{name: 3})
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3


def test_several_answers(client):
    asked = {"model": "any", "messages": question(data_url()), "temperature": 1.0}
    three = client.chat.completions.create(**asked, n=3, seed=5)
    assert [each.index for each in three.choices] == [0, 1, 2]
    for index, choice in enumerate(three.choices):
        one = client.chat.completions.create(**asked, seed=5 + index)
        assert one.choices[0].message.content == choice.message.content
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    chunks = list(client.chat.completions.create(**asked, n=3, seed=5, stream=True))
    for index, choice in enumerate(three.choices):
        said = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices[0].index == index)
        assert said == choice.message.content


@pytest.mark.parametrize("stream", [False, True])
def test_stop(client, stream):
    asked = {"model": "any", "messages": question(data_url())}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    stop = whole[4:9]
    answer = client.chat.completions.create(**asked, stop=[stop, "nowhere"], stream=stream)
    if stream:
        chunks = list(answer)
        text, finish = "".join(each.choices[0].delta.content or "" for each in chunks), chunks[-1].choices[0].finish_reason
    else:
        text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert answer.usage.prompt_tokens > 0
    assert text == whole[: whole.index(stop)] and finish == "stop"


def test_models(client, openai):
    (listed,) = client.models.list().data
    assert listed == client.models.retrieve("janus-nano") and listed.id == "janus-nano"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'; 'janus-nano' is served"):
        client.models.retrieve("gpt-4")


def test_errors_have_their_classes_and_ids(client, openai):
    with pytest.raises(openai.BadRequestError, match="use b64_json") as raised:
        client.images.generate(prompt=PROMPT, response_format="url")
    assert (raised.value.param, raised.value.type) == ("response_format", "invalid_request_error")
    assert raised.value.request_id.startswith("req-")
    with pytest.raises(openai.BadRequestError, match="reserved token") as raised:
        client.images.generate(prompt="a <image_placeholder>")
    assert raised.value.code == "prompt"


def test_the_guides_example(openai, server, tmp_path, monkeypatch, capsys):
    guide = (Path(__file__).resolve().parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", guide, re.S)
    monkeypatch.chdir(tmp_path)
    example = example.replace("http://localhost:8000", server.url).replace("a red fox in the snow", PROMPT)
    exec(compile(example, "docs/serving.md", "exec"), {})
    with Image.open("fox.png") as drawn:
        assert drawn.size == (64, 64)
    assert "red" in capsys.readouterr().out
