import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from janus_runtime.bundle.manifest import FORMAT, Manifest
from janus_runtime.errors import BundleError


@pytest.fixture(scope="module")
def raw(tiny):
    return json.loads((tiny / "manifest.json").read_text())


def parse(value) -> Manifest:
    return Manifest.from_json(json.dumps(value))


def changed(raw, path, value):
    """A copy of `raw` with the field at `path` set, or taken out for None."""
    copy = json.loads(json.dumps(raw))
    # The name of a flavour's graph has a dot.
    *parents, last = path.replace("model.gqa", "model/gqa").split(".")
    node = copy
    for parent in parents:
        node = node[parent.replace("/", ".")]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return copy


def test_round_trip(raw):
    manifest = parse(raw)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json()) == raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", FORMAT + 1, f"has format {FORMAT + 1}, this version reads format {FORMAT}; export the bundle again"),
        ("format", "2", "has no format number"),
        ("format", True, "has no format number"),
        ("tokens.bos.id", "0", r"tokens.bos.id: expected int, got '0'"),
        ("tokens.bos", None, "tokens: missing bos"),
        ("colour", "red", "unknown colour"),
        ("precision", "fp8", "precision: expected one of fp32, fp16, int8, int4, got 'fp8'"),
        ("defaults.cfg_weight", "5", "defaults.cfg_weight: expected float, got '5'"),
        ("language_model.num_layers", 2.5, "language_model.num_layers: expected int, got 2.5"),
        ("image_output.num_tokens", 15, "image_output.num_tokens does not fit: expected 16, got 15"),
        ("image_input.mean", [0.5], "image_input.mean does not fit: expected 3, got 1"),
        ("tasks", "generation", "tasks: expected"),
        ("graphs.text_head.file", "other.onnx", "'other.onnx' is not listed under files"),
        ("files", {}, "'weights.data' is not listed under files"),
        ("graphs", {}, "graphs image_decoder, image_embed, .* are missing, which generation needs"),
        ("defaults.temperature", float("nan"), "defaults.temperature: expected float, got nan"),
        ("language_model.num_heads", -1, "num_heads: expected int, got -1"),
        ("language_model.num_layers", 10**12, "num_layers: expected int, got 1000000000000"),
        ("tasks", [], r"tasks is \(\), which no Janus has"),
        ("image_input.min_size", 100000, "image_input.min_size is 100000, which no Janus has"),
        ("image_input.std", [0.5, 0, 0.5], "image_input.std is .*, which no Janus has"),
        ("image_input.background", [999, 0, 0], "image_input.background is"),
        ("defaults.max_tokens", 0, "defaults.max_tokens is 0"),
        ("language_model.max_length", 1, "language_model.max_length is 1"),
        ("tokens.eos.id", 5000, "tokens.eos.id is 5000"),
        ("graphs.text_embed.inputs", {}, r"graphs.text_embed.inputs does not fit: expected \['text_ids'\], got \[\]"),
        ("language_model.num_layers", 3, r"language_model.gqa.inputs does not fit: expected .*'past_value_2'\], got"),
        ("language_model.head_size", 32, "inputs.past_key_0 does not fit"),
        ("graphs.language_model.gqa.flavour", "slice", "graphs.language_model.gqa does not fit: expected language_model.slice"),
        ("graphs.text_draw.kind", "image_draw", "graphs.text_draw does not fit: expected image_draw, got text_draw"),
        ("graphs.text_head.flavour", "gqa", "graphs.text_head does not fit: expected text_head.gqa"),
        ("graphs.text_head.kind", "head", "graphs.text_head.kind: expected one of text_embed, .*, got 'head'"),
        ("graphs.text_head.format.weights", "int2", "graphs.text_head.format.weights: expected one of float32, float16, int8, int4"),
        ("graphs.language_model.gqa.cache.ragged_append", True, "graphs.language_model.gqa.cache does not fit"),
        ("language_model.vocab_size", 321, r"graphs.text_head.outputs.logits does not fit: expected .*\('rows', 321\)"),
        ("image_input.num_tokens", 15, "graphs.vision_encoder.outputs.embeds does not fit"),
        ("image_output.num_ids", 513, "graphs.image_head.outputs.logits does not fit"),
        ("image_output.size", 65, "graphs.image_encoder.inputs.pixels does not fit"),
        (
            "graphs.image_encoder.outputs.image_ids.shape",
            ["n", 16],
            r"image_encoder.outputs.image_ids does not fit: expected .*'images', 16.*, got .*'n', 16",
        ),
        ("graphs.text_head.inputs.hidden.shape", ["rows", 1.5], r"shape\[1\]: expected"),
    ],
)
def test_a_field_that_is_wrong_is_named(raw, path, value, message):
    with pytest.raises(BundleError, match=message):
        parse(changed(raw, path, value))


@pytest.mark.parametrize("name", ["../weights.data", "/etc/passwd", "a/../../b", "..\\b", "C:b", "", "a\0b"])
def test_paths_cannot_leave_the_bundle(raw, name):
    bad = json.loads(json.dumps(raw))
    bad["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    with pytest.raises(BundleError, match="leaves the bundle"):
        parse(bad)


@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers()), st.dictionaries(st.text(), st.integers())))
def test_other_json_is_a_clear_error(value):
    with pytest.raises(BundleError):
        parse(value)


@given(st.data())
def test_any_field_of_another_type_is_an_error_or_reads_back(raw, data):
    """Strict parsing: nothing but BundleError comes out, whichever leaf is replaced by whatever JSON value."""
    node, path = raw, []
    while isinstance(node, dict) and node:
        key = data.draw(st.sampled_from(sorted(node)))
        path.append(key)
        node = node[key]
        if data.draw(st.booleans()):
            break
    value = data.draw(st.one_of(st.integers(), st.text(max_size=3), st.booleans(), st.floats(allow_nan=False), st.lists(st.none())))
    copy = json.loads(json.dumps(raw))
    parent = copy
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    try:
        manifest = parse(copy)
    except BundleError:
        return
    assert json.loads(manifest.to_json()) == copy


def test_deep_json():
    with pytest.raises(BundleError, match="is not JSON"):
        Manifest.from_json("[" * 100_000)


@given(st.text())
def test_any_text_is_a_clear_error(text):
    with pytest.raises(BundleError):
        Manifest.from_json(text)
