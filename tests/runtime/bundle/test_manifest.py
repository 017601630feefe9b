import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from janus_runtime.bundle.manifest import Manifest
from janus_runtime.errors import BundleError

from .bad_manifests import PATHS_OUT, WRONG_FIELDS, WRONG_FLOW_FIELDS, changed


@pytest.fixture(scope="module")
def raw(tiny):
    return json.loads((tiny / "manifest.json").read_text())


def parse(value) -> Manifest:
    return Manifest.from_json(json.dumps(value))


def test_round_trip(raw):
    manifest = parse(raw)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json()) == raw


@pytest.mark.parametrize(("path", "value", "message"), WRONG_FIELDS)
def test_a_field_that_is_wrong_is_named(raw, path, value, message):
    with pytest.raises(BundleError, match=message):
        parse(changed(raw, path, value))


@pytest.mark.parametrize(("path", "value", "message"), WRONG_FLOW_FIELDS)
def test_a_field_of_a_flow_that_is_wrong_is_named(bundles, path, value, message):
    raw = json.loads((bundles("tiny-flow") / "manifest.json").read_text())
    with pytest.raises(BundleError, match=message):
        parse(changed(raw, path, value))


@pytest.mark.parametrize("name", PATHS_OUT)
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
