"""What the server may do to the page: go away, be busy, want a key, or have half of a model only."""

import pytest

from tests.runtime.serve.conftest import serving
from tests.runtime.serve.page.visitor import answers, ask, draw, drawn, list_model, to_ask

GONE = "The server does not answer. See that it runs, then try again; what you typed is still here."


def refuse(page, status, code, message="", **headers):
    """The server refuses every drawing."""
    error = {"error": {"message": message, "code": code}}
    page.route("**/v1/images/generations", lambda route: route.fulfill(status=status, headers=headers, json=error))


class TestGone:
    def test_while_drawing_and_back_again(self, visit, model, slow):
        with serving(model, max_queue=64) as first:
            port = first.address[1]
            page = visit(first).open()
            draw(page, "a red circle", n=2, seed=0)
            slow(0.5)
            page.wait_for_selector("#gallery progress[value]")
        page.wait_for_selector("#failed p")
        said = page.inner_text("#failed p")
        assert said.startswith("2 pictures were not drawn. The server") and said.endswith("then try again.")
        assert page.locator("#failed p").count() == 1 and page.locator(".job .wrong").all_inner_texts() == ["Not drawn."] * 2
        draw(page, "a blue square", seed=1)
        page.wait_for_selector(".job:nth-child(1) .wrong")
        assert page.inner_text(".job:nth-child(1) .wrong") == GONE and page.input_value("[name=prompt]") == "a blue square"
        slow(0)
        with serving(model, port=port, max_queue=64):
            page.click("text=Try all again")
            page.click(".job:nth-child(1) >> text=Try again")
            drawn(page, 3)
            assert page.locator("#failed p").count() == 0
            page.context.close()

    def test_while_answering_and_back_again(self, visit, model, slow):
        with serving(model, max_queue=64) as first:
            port = first.address[1]
            page = visit(first).open()
        to_ask(page)
        ask(page, "What is this?")
        page.wait_for_selector("#talk .wrong")
        assert page.inner_text("#talk .wrong p") == GONE and page.input_value("[name=question]") == "What is this?"
        with serving(model, port=port, max_queue=64):
            page.click("#ask-form .main:visible")
            answers(page, 1)
            page.context.close()

    def test_when_the_page_comes_first(self, visitor):
        visitor.context.route("**/v1/models", lambda route: route.abort())
        page = visitor.open(ready=False)
        page.wait_for_selector("#notice:visible")
        assert page.inner_text("#notice") == GONE
        page.evaluate("""() => {
            window.told = 0;
            new MutationObserver(() => window.told++).observe(document.getElementById("notice"), { childList: true });
        }""")
        page.wait_for_event("requestfailed")
        page.wait_for_timeout(100)
        assert page.evaluate("window.told") == 0, "said again, it is read out again"
        visitor.context.unroute("**/v1/models")
        page.wait_for_selector("body[data-ready]")
        assert not page.is_visible("#notice")


class TestRefused:
    def test_a_full_queue(self, page):
        refuse(page, 429, "busy", **{"retry-after": "7"})
        draw(page, "a red circle")
        page.wait_for_selector(".job .wrong")
        assert page.inner_text(".job .wrong") == "The server is busy. Try again in 7 s."

    def test_several_are_told_of_once_and_tried_again_together(self, page):
        waits = iter("5678")
        error = {"error": {"message": "full", "code": "busy"}}
        page.route("**/v1/images/generations", lambda route: route.fulfill(status=429, headers={"retry-after": next(waits)}, json=error))
        draw(page, "a red circle", n=4, seed=0)
        page.wait_for_selector("#failed p:text('4 pictures were not drawn. The server is busy.')")
        assert page.locator("#failed p").count() == 1
        page.click("#gallery li:first-child >> text=Remove")
        page.wait_for_selector("#failed p:text('3 pictures were not drawn.')")
        page.unroute("**/v1/images/generations")
        page.wait_for_timeout(500)
        page.click("text=Try all again")
        drawn(page, 3)
        assert page.locator("#failed p").count() == 0

    def test_several_are_removed_together(self, page):
        refuse(page, 503, "stopping")
        draw(page, "a red circle", n=3)
        page.wait_for_selector("#failed p:text('3 pictures were not drawn. The server is stopping. Start it again, then try again.')")
        page.click("text=Remove all")
        assert page.locator("#gallery li").count() == 0 and page.input_value("[name=prompt]") == "a red circle"

    @pytest.mark.parametrize(
        ("status", "code", "message", "said"),
        [
            (503, "out_of_memory", "out of memory (x); ask for less at once", "Out of memory (x); ask for less at once."),
            (413, "too_large", "the body has 9 bytes", "That is too large for this server: The body has 9 bytes."),
            (500, None, "a fault", "A fault."),
        ],
    )
    def test_other_reasons_are_in_its_words(self, page, status, code, message, said):
        refuse(page, status, code, message)
        draw(page, "a red circle")
        page.wait_for_selector(".job .wrong")
        assert page.inner_text(".job .wrong") == said


class TestKey:
    @pytest.fixture
    def locked(self, model):
        with serving(model, max_queue=64, api_key="opensesame") as server:
            yield server

    def test_it_is_asked_for_once(self, visit, locked):
        page = visit(locked).open(ready=False)
        page.fill("#key input", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-refused", state="visible")
        page.fill("#key input", "opensesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
        draw(page, "a red circle", seed=0)
        drawn(page, 1)
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert not page.is_visible("#key")
        page.context.close()

    def test_it_is_not_asked_for_again_unless_wished(self, visit, locked):
        page = visit(locked).open(ready=False)
        page.click("#key >> text=Not now")
        page.wait_for_selector("#notice >> text=This server wants an API key.")
        assert not page.is_visible("#key")
        page.click("#notice >> text=Enter it")
        page.fill("#key input", "opensesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
        assert not page.is_visible("#notice")
        page.context.close()


@pytest.mark.parametrize(("tasks", "shown"), [(["understanding"], "ask"), (["generation"], "draw")])
def test_it_offers_what_the_bundle_can(page, tasks, shown):
    list_model(page, tasks=tasks, size="64x64" if "generation" in tasks else None)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.locator("[role=tab]:visible").count() == 1 and page.is_visible(f"#{shown}")


def test_a_half_that_the_server_has_no_more(page):
    """It was started again with another bundle, while the page was open."""
    refuse(page, 400, "bundle", "janus-nano was exported for understanding only, not for generation; serve another bundle")
    draw(page, "a red circle")
    page.wait_for_selector(".job .wrong")
    said = page.inner_text(".job .wrong")
    assert said == "Janus-nano was exported for understanding only, not for generation; serve another bundle."
