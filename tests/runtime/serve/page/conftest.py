"""A real browser, over a real server and janus-nano."""

import os
import shutil
import time

import pytest

from tests.runtime.serve.conftest import serving
from tests.runtime.serve.page.visitor import Visitor

BROWSER = os.environ.get("JANUS_BROWSER") or next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
# As a container needs it, and without calls to its maker.
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip


# Playwright's loop runs in this thread as long as its browser is open; the tests beside this folder run loops of their own.
@pytest.fixture(scope="package")
def browser():
    if BROWSER is None:
        pytest.skip("no browser here; apt install chromium, or name one in JANUS_BROWSER")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    with playwright.sync_playwright() as opened:
        browser = opened.chromium.launch(executable_path=BROWSER, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def own(model):
    """A server whose queue holds what these tests ask at once."""
    with serving(model, max_queue=64) as client:
        yield client


@pytest.fixture
def visit(browser, own):
    """`visit(server, …)` -> a visitor of a server, by default the shared one; options are those of a browser's context."""
    visitors = []

    def open_visitor(server=own, **options):
        visitors.append(Visitor(browser, server, **options))
        return visitors[-1]

    yield open_visitor
    for visitor in visitors:
        visitor.context.close()
    # Script errors, and breaches of the content policy, which the browser writes to the console.
    assert [visitor.wrong for visitor in visitors if visitor.wrong] == []
    assert [visitor.asked_elsewhere for visitor in visitors if visitor.asked_elsewhere] == []


@pytest.fixture
def visitor(visit):
    return visit()


@pytest.fixture
def page(visitor):
    return visitor.open()


@pytest.fixture
def slow(model, monkeypatch):
    """Steps long enough for a person to act between them; `slow(seconds)` makes them longer or shorter."""
    real, wait = model._engines.predict, [0.03]
    monkeypatch.setattr(model._engines, "predict", lambda *given: (time.sleep(wait[0]), real(*given))[1])
    return lambda seconds: wait.__setitem__(0, seconds)
