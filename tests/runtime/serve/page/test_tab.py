"""What a tab keeps: across a reload, beside other tabs, and where the browser keeps nothing."""

import numpy as np

from tests.runtime.serve.page.visitor import RED, answers, ask, choose_photo, draw, drawn, list_model, to_ask


def reload(page):
    page.reload()
    page.wait_for_selector("body[data-ready]")


def test_what_was_typed_and_drawn(page):
    draw(page, "a red circle", n=2, seed=5)
    before = drawn(page, 2)
    page.fill("[name=prompt]", "three yellow cro")
    to_ask(page)
    page.fill("[name=question]", "What is th")
    reload(page)
    assert page.is_visible("#ask") and page.input_value("[name=question]") == "What is th"
    assert page.input_value("[name=prompt]") == "three yellow cro" and page.input_value("[name=seed]") == "5"
    assert np.array_equal(drawn(page, 2), before)


def test_the_conversation_and_the_next_photo(page, tmp_path):
    draw(page, "a red circle", seed=0)
    drawn(page, 1)
    page.click("#gallery >> text=Ask about it")
    page.wait_for_selector("#photos img")
    ask(page, "What colour is the circle?")
    answers(page, 1)
    RED.save(tmp_path / "red.png")
    choose_photo(page, tmp_path / "red.png")
    reload(page)
    assert page.locator("#talk .user img").count() == 1 and page.locator("#photos img").count() == 1
    assert answers(page, 1) == ["red"]
    page.click("#photos >> text=Remove")
    ask(page, "What shape is it?")
    assert "circle" in answers(page, 2)[1]


def test_pictures_that_a_reload_interrupts_can_be_tried_again(page, slow):
    draw(page, "a red circle", n=2, seed=0)
    page.wait_for_selector("#gallery .job[data-partials]")
    reload(page)
    assert page.inner_text("#failed p").startswith("2 pictures were not drawn. The page was loaded again")
    slow(0)
    page.click("text=Try all again")
    drawn(page, 2)
    reload(page)
    drawn(page, 2)


def test_two_tabs_keep_to_themselves(visitor):
    first, second = visitor.open(), visitor.open()
    draw(first, "a red circle", n=2, seed=1)
    draw(second, "a blue square", seed=2)
    drawn(first, 2)
    drawn(second, 1)
    reload(second)
    assert len(drawn(second, 1)) == 1 and second.input_value("[name=prompt]") == "a blue square"
    reload(first)
    assert len(drawn(first, 2)) == 2


def test_another_model_has_its_own_settings(page):
    """The server was started again with it: what was not changed is the new model's, and what it does not offer is left out."""
    page.fill("[name=prompt]", "a red circle")
    page.select_option("[name=size]", "512x512")
    page.fill("[name=temperature]", "0.5")
    list_model(page, size="768x768", defaults={"guidance_scale": 3, "temperature": 1, "steps": None})
    reload(page)
    values = [page.input_value(f"[name={name}]") for name in ("prompt", "size", "guidance_scale", "temperature")]
    assert values == ["a red circle", "768x768", "3", "0.5"]


def test_what_tabs_kept_that_are_long_gone_is_forgotten(page):
    draw(page, "a red circle", n=2, seed=0)
    drawn(page, 2)
    in_store = """change => new Promise(resolve => {
        indexedDB.open("janus-rt").onsuccess = event => {
            const store = event.target.result.transaction("pictures", "readwrite").objectStore("pictures");
            store.getAll().onsuccess = ({ target }) => {
                if (change) store.put({ ...target.result[0], at: Date.now() - 8 * 24 * 3600 * 1000 });
                resolve(target.result.length);
            };
        };
    })"""
    page.evaluate(in_store, True)
    reload(page)
    page.wait_for_function(f"async () => await ({in_store})(false) === 1")
    reload(page)
    drawn(page, 1)


def test_a_browser_that_keeps_nothing(visitor, page):
    """Site data are blocked: pictures and conversations last as long as the page, and it says so."""
    page.context.add_init_script("""
        for (const name of ["sessionStorage", "indexedDB"]) {
            Object.defineProperty(window, name, { get() { throw new DOMException("blocked", "SecurityError"); } });
        }
    """)
    page = visitor.open()
    draw(page, "a red circle", seed=0)
    drawn(page, 1)
    page.wait_for_selector("#gallery-title >> text=until you leave the page")
    page.click("#gallery >> text=Ask about it")
    page.wait_for_selector("#photos img")
    ask(page, "What colour is the circle?")
    assert answers(page, 1) == ["red"]
