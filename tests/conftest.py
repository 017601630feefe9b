"""Fixtures that many tests share. Bundles are exported in the run, or taken from the folder that JANUS_TEST_BUNDLES names."""

import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import settings

import janus_runtime

pytest_plugins = ["tests.given_bundles" if os.environ.get("JANUS_TEST_BUNDLES") else "tests.exported_bundles"]

# Nothing in the tests may reach for a hub by accident; the hub test brings its own on loopback.
os.environ["HF_HUB_OFFLINE"] = "1"

# No deadline: how long an example takes says how busy the machine is. `make test-full` tries many more examples.
settings.register_profile("default", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=2000)
settings.load_profile("default")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the published tokenizer and pictures are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny(bundles) -> Path:
    return bundles("tiny")


@pytest.fixture(scope="session")
def janus(tiny):
    with janus_runtime.load(tiny, backend="cpu") as opened:
        yield opened


@pytest.fixture
def run():
    """`run(main, "generate", …)` -> click's result, stdout and stderr apart."""
    yield lambda main, *arguments, **options: CliRunner().invoke(main, [str(a) for a in arguments], **options)
    # A command with --quiet quiets its process, which here goes on with the next test.
    logging.getLogger("janus_runtime").setLevel(logging.NOTSET)
