"""For whom the page must work: keyboards, screen readers, and who wants no motion."""

import pytest

from tests.runtime.serve.page.visitor import answers, ask, choose_photo, draw, drawn, to_ask


def tab_to(page, selector):
    """Presses Tab until what is named has the focus."""
    for _ in range(60):
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {selector}")


def focused(page):
    return page.evaluate("document.activeElement.textContent || document.activeElement.name || document.activeElement.tagName")


class TestKeyboard:
    def test_drawing_and_asking_about_it(self, page):
        tab_to(page, "[name=prompt]")
        page.keyboard.type("a red circle")
        tab_to(page, "[name=seed]")
        page.keyboard.type("0")
        page.keyboard.press("Enter")
        drawn(page, 4)
        tab_to(page, "#gallery .frame")
        page.keyboard.press("Enter")
        page.wait_for_selector("#large[open]")
        page.keyboard.press("Enter")
        page.wait_for_selector("#large", state="hidden")
        for _ in range(3):
            page.keyboard.press("Tab")
        assert focused(page) == "Ask about it"
        page.keyboard.press("Space")
        page.wait_for_selector("#photos img")
        page.keyboard.type("What colour is the circle?")
        page.keyboard.press("Enter")
        assert answers(page, 1) == ["red"]
        tab_to(page, "#tab-ask")
        page.keyboard.press("ArrowLeft")
        assert page.is_visible("#draw")
        page.keyboard.press("ArrowLeft")
        assert page.is_visible("#ask")

    def test_a_photo_is_chosen(self, page, model, tmp_path):
        model.generate("a red circle", seed=0)[0].image.save(tmp_path / "red.png")
        # From now on: told of it when the key is pressed, the browser may open the dialog itself.
        page.on("filechooser", lambda chooser: chooser.set_files(tmp_path / "red.png"))
        tab_to(page, "#tab-draw")
        page.keyboard.press("ArrowRight")
        tab_to(page, "[name=photo]")
        page.keyboard.press("Enter")
        page.wait_for_selector("#photos img")
        assert focused(page) == "question"
        page.keyboard.type("What colour is the circle?")
        tab_to(page, "#ask-form [type=submit]")
        page.keyboard.press("Enter")
        assert answers(page, 1) == ["red"]
        assert focused(page) == "Ask"
        tab_to(page, "#anew")
        page.keyboard.press("Enter")
        page.wait_for_selector("#talk li", state="detached")
        tab_to(page, "#ask .undo button")
        page.keyboard.press("Enter")
        assert answers(page, 1) == ["red"] and focused(page) == "question"

    def test_the_focus_stays_where_something_gives_way(self, page, slow):
        draw(page, "a red circle", n=2, seed=0)
        page.wait_for_selector("#gallery progress[value]")
        page.locator("#gallery li:nth-child(1) >> text=Cancel").focus()
        slow(0)
        drawn(page, 2)
        assert page.evaluate("document.activeElement.matches('#gallery li:nth-child(1) .frame')")
        page.locator("#gallery li:nth-child(1) >> text=Delete").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.matches('#gallery li:nth-child(1) .frame')")
        tab_to(page, "#gallery-head .undo button")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.matches('#gallery li:nth-child(1) .frame')")
        page.route("**/v1/images/generations", lambda route: (page.wait_for_timeout(200), route.abort()))
        page.select_option("[name=n]", "2")
        page.click("#draw-form .main")
        page.locator("#gallery li:nth-child(1) >> text=Cancel").focus()
        page.wait_for_selector("#failed p")
        assert focused(page) == "Try again"
        page.unroute("**/v1/images/generations")
        tab_to(page, "#failed button")
        page.keyboard.press("Enter")
        assert focused(page) == "Cancel"
        drawn(page, 4)


class TestScreenReader:
    def test_it_is_told_little(self, page, slow):
        """Of four pictures: that they are begun, and when each is done. Of an answer: the whole of it."""
        page.evaluate("""() => {
            window.told = [];
            const read = ([{ target }]) => window.told.push(target.textContent);
            for (const id of ["status", "notice"]) new MutationObserver(read).observe(document.getElementById(id), { childList: true });
        }""")
        live = page.eval_on_selector_all("[aria-live], [role=status], [role=alert], output", "all => all.map(each => each.id)")
        assert sorted(live) == ["notice", "status"]
        draw(page, "a red circle", n=4, seed=0)
        drawn(page, 4)
        assert page.evaluate("window.told.splice(0)") == [
            "Drawing 4 pictures.",
            *(f"A picture is done, {left} to go." for left in (3, 2, 1)),
            "All pictures are done.",
        ]
        page.route("**/v1/images/generations", lambda route: route.abort())
        page.wait_for_timeout(500)
        draw(page, "a red circle", n=3)
        page.wait_for_selector("#failed p")
        page.wait_for_timeout(600)
        assert [each.split(".")[0] for each in page.evaluate("window.told.splice(0)")] == [
            "Drawing 3 pictures",
            "3 pictures were not drawn",
        ]
        page.unroute("**/v1/images/generations")
        draw(page, "a red circle")
        drawn(page, 8)
        assert page.evaluate("window.told.splice(0)") == ["Drawing a picture.", "All pictures are done."]
        page.click("#gallery li:last-child >> text=Ask about it")
        page.wait_for_selector("#photos img")
        page.evaluate("window.told = []")
        ask(page, "What colour is the circle?")
        answers(page, 1)
        assert [each.strip() for each in page.evaluate("window.told")] == ["red"]

    def test_everything_has_a_name(self, page):
        draw(page, "a red circle", seed=0)
        drawn(page, 1)
        page.click("#gallery .frame")
        tree = page.locator("body").aria_snapshot()
        assert 'dialog "Picture"' in tree and 'img "a red circle"' in tree


def test_without_motion(visit):
    page = visit(reduced_motion="reduce").open()
    held = []
    page.route("**/v1/images/generations", lambda route: held.append(route))
    draw(page, "a red circle", seed=0)
    bar = page.locator("#gallery progress")
    assert bar.evaluate("bar => getComputedStyle(bar).visibility") == "hidden"
    page.wait_for_function("() => document.querySelector('#gallery .said')")
    held[0].continue_()
    drawn(page, 1)
    moves = "style => parseFloat(style.transitionDuration) > 0 || style.animationName !== 'none'"
    assert page.evaluate(f"[...document.querySelectorAll('*')].map(each => getComputedStyle(each)).some({moves})") is False


@pytest.mark.parametrize(("colours", "width"), [("light", 1100), ("dark", 360)])
def test_axe_finds_nothing_serious(visit, server, slow, tmp_path, model, colours, width):
    """In every state."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install '.[dev]'").Axe()
    page = visit(server, color_scheme=colours, viewport={"width": width, "height": 900}).open()

    def check(state):
        found = [each for each in axe.run(page).response["violations"] if each["impact"] in ("serious", "critical")]
        assert found == [], (state, [(each["id"], each["nodes"][0]["html"]) for each in found])

    check("empty")
    page.evaluate("document.querySelectorAll('details').forEach(each => (each.open = true))")
    check("explained")
    draw(page, "a red circle", n=2, seed=0)
    page.wait_for_selector("#gallery .job[data-partials]")
    check("drawing")
    slow(0)
    drawn(page, 2)
    check("drawn")
    page.click("#gallery li:first-child .frame")
    check("enlarged")
    page.keyboard.press("Escape")
    page.click("#gallery li:first-child >> text=Delete")
    check("deleted")
    page.click("#gallery-head .undo >> text=Undo")
    page.click("#gallery li:first-child >> text=Draw from it")
    page.wait_for_selector("#reference-shown img")
    check("reference")
    page.click("#reference-shown >> text=Remove")
    draw(page, "<begin_of_image>", n=2)
    page.wait_for_selector("#failed p")
    check("refused")
    to_ask(page)
    check("nothing asked")
    (tmp_path / "no.png").write_bytes(b"text")
    page.set_input_files("[name=photo]", tmp_path / "no.png")
    page.wait_for_selector("#notice:visible")
    check("no picture")
    model.generate("a red circle", seed=0)[0].image.save(tmp_path / "red.png")
    choose_photo(page, tmp_path / "red.png")
    check("photo")
    slow(0.2)
    ask(page, "What colour is the circle?")
    check("answering")
    slow(0)
    answers(page, 1)
    check("answered")
    ask(page, "<image_placeholder>")
    page.wait_for_selector("#talk .wrong")
    check("question refused")
    page.evaluate("document.getElementById('key').showModal()")
    check("key")
