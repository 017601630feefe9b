"""docs/bundle.md and the JSON Schema say what the code reads."""

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from janus_runtime.bundle.bundle import NANO
from janus_runtime.bundle.interface import GraphKind
from janus_runtime.bundle.manifest import FORMAT, Manifest
from janus_runtime.errors import BundleError
from testing.bundle_page import PAGE, manifest_schema, written

RAW = json.loads((NANO / "manifest.json").read_text(encoding="utf-8"))
# What sizes must agree, and which files must be there, no schema can say.
_BEYOND = ("does not fit", "no Janus has", "is not listed", "are missing, which", "leaves the bundle")
VALIDATOR = jsonschema.Draft202012Validator(manifest_schema())


def test_page_and_schema_are_printed_from_the_code():
    """Run `python -m testing.bundle_page` where this fails."""
    for path, text in written().items():
        assert path.read_text(encoding="utf-8") == text, path


def test_every_field_and_kind_is_on_the_page():
    page = PAGE.read_text(encoding="utf-8")
    assert [kind for kind in GraphKind.__args__ if f"`{kind}`" not in page] == []
    assert [field for field in RAW if f"`{field}" not in page] == []
    assert f"format {FORMAT}" in page


def parses(value) -> bool:
    try:
        Manifest.from_json(json.dumps(value))
    except BundleError as error:
        return any(words in str(error) for words in _BEYOND)
    return True


def test_a_manifest_fits_the_schema():
    VALIDATOR.validate(RAW)
    assert parses(RAW)


@given(st.data())
def test_the_schema_takes_what_the_parser_takes(data):
    """One field, anywhere, replaced by any JSON value, taken out or added."""
    copy = json.loads(json.dumps(RAW))
    node, path = copy, []
    while isinstance(node, dict | list) and node:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        path.append(key)
        parent, node = node, node[key]
        if data.draw(st.booleans()):
            break
    how = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if how == "replace":
        # 5.0 is an integer to JSON Schema, not to us.
        fractions = st.floats(-1e6, 1e6).filter(lambda number: not number.is_integer())
        values = st.one_of(st.none(), st.integers(-3, 2**64), st.text(max_size=3), st.booleans(), fractions)
        parent[path[-1]] = data.draw(st.one_of(values, st.lists(values, max_size=2), st.just({})))
    elif how == "remove":
        del parent[path[-1]]
    elif isinstance(parent, dict):
        parent["unheard-of"] = 1
    assert VALIDATOR.is_valid(copy) == parses(copy), path


@pytest.mark.parametrize("text", ["[]", "5", '"x"', "null"])
def test_other_json(text):
    assert not VALIDATOR.is_valid(json.loads(text))
