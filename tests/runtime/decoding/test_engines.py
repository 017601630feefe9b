"""Graphs that open while something else runs."""

import threading

import pytest
from PIL import Image

import janus_runtime
from janus_runtime.errors import BackendError


@pytest.fixture
def janus(bundles):
    with janus_runtime.load(bundles("tiny")) as janus:
        yield janus


def test_a_picture_is_encoded_while_the_decoder_opens(janus, monkeypatch):
    engines, encoded = janus._engines, threading.Event()
    load, encode_image = engines.backend.load, engines.encode_image

    def load_late(bundle, graph):
        if graph.startswith("language_model"):
            assert encoded.wait(60), "the decoder is opened before the picture is encoded"
        return load(bundle, graph)

    def encode(pixels):
        features = encode_image(pixels)
        encoded.set()
        return features

    monkeypatch.setattr(engines.backend, "load", load_late)
    monkeypatch.setattr(engines, "encode_image", encode)
    answer = janus.describe(Image.new("RGB", (70, 50), "red"), "What is this?", max_tokens=2)
    assert len(list(answer)) >= 1 and answer.timings.keys() >= {"load", "encode", "prefill"}


def test_what_fails_beside_reaches_who_waits(janus, monkeypatch):
    load = janus._engines.backend.load

    def fail(bundle, graph):
        if graph == "text_head":
            raise BackendError("text_head is not for today")
        return load(bundle, graph)

    monkeypatch.setattr(janus._engines.backend, "load", fail)
    wait_until_open = janus._engines.open_beside("text_head", "text_embed")
    with pytest.raises(BackendError, match="not for today"):
        wait_until_open()
    assert janus._engines.are_open("text_embed")
