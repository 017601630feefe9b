"""Schemathesis asks whatever the OpenAPI document allows, and much that it does not."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

OPERATIONS = [
    ("POST", "/v1/images/generations"),
    ("POST", "/v1/images/edits"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/"),
]


def test_every_operation_is_asked(server):
    paths = server.get("/openapi.json").json["paths"]
    assert sorted((method.upper(), path) for path, operations in paths.items() for method in operations) == sorted(OPERATIONS)


@pytest.fixture(scope="module")
def schemathesis():
    return pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install '.[dev]'")


@pytest.fixture(scope="module")
def schema(schemathesis, server):
    schemathesis.checks.load_all_checks()
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


# Of the others nothing could be wrong.
CASES = [(*each, "POSITIVE") for each in OPERATIONS] + [(*each, "NEGATIVE") for each in OPERATIONS if each[0] == "POST"]


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_every_answer_is_documented(schemathesis, schema, method, path, mode):
    strategy = schema[path][method].as_strategy(generation_mode=getattr(schemathesis.GenerationMode, mode))
    # What a document cannot say: that sides are equal, in which order messages come, which words are reserved.
    excluded = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]
    examples = 25 if method == "POST" else 3

    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(data):
        case = data.draw(strategy)
        if isinstance(case.body, dict) and type(case.body.get("n")) is int:
            # Pictures take time.
            case.body["n"] = min(case.body["n"], 2)
        case.call_and_validate(excluded_checks=excluded)

    ask()
