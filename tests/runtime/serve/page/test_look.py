"""How the page looks: nothing is cut, overlaps or shifts. The pictures of the guide."""

import os

import pytest

from tests.runtime.serve.page.visitor import answers, ask, choose_photo, draw, drawn, to_ask

# Of what can be pressed, typed into or read: what is wider than its place, and what lies over something else.
FAULTS = """() => {
    const things = "main :is(button, input, select, textarea, a, p, dd, dt, summary, .frame), header *";
    const shown = [...document.querySelectorAll(things)].filter(each => each.checkVisibility({ visibilityProperty: true }));
    const faults = [];
    const note = (fault, ...all) => faults.push([fault, ...all.map(each => `${each.outerHTML.slice(0, 60)}`)].join(" | "));
    for (const each of shown) {
        const { left, right } = each.getBoundingClientRect();
        const scrolls = each.matches(".said, .unseen, textarea, [type=file]") || !each.clientWidth;
        if (!scrolls && each.scrollWidth > each.clientWidth + 1) note("cut", each);
        if (left < -1 || right > innerWidth + 1) note("outside", each);
    }
    // These lie over others, as long as they say something.
    const apart = shown.filter(each => !each.closest(".undo, #notice")).map(each => [each, each.getBoundingClientRect()]);
    for (const [one, a] of apart) for (const [other, b] of apart) {
        if (one.contains(other) || other.contains(one)) continue;
        const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (width > 1 && height > 1) note("over", one, other);
    }
    return faults;
}"""
COUNT_SHIFTS = """() => {
    window.shift = 0;
    new PerformanceObserver(list => {
        for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
    }).observe({ type: "layout-shift" });
}"""
LONG = "a red circle and a very long prompt that goes on and on " * 3


@pytest.mark.parametrize("width", [1440, 768, 360])
def test_nothing_is_cut_and_nothing_shifts(visit, server, slow, width, tmp_path, model):
    page = visit(server, viewport={"width": width, "height": 900}).open()
    page.evaluate("document.querySelectorAll('details').forEach(each => (each.open = true))")
    page.wait_for_timeout(100)
    page.evaluate(COUNT_SHIFTS)
    assert page.evaluate(FAULTS) == []
    draw(page, LONG, n=3, seed=4_000_000_000)
    page.wait_for_selector("#gallery .job[data-partials]")
    # A click's own shifts count as its effect for half a second.
    page.wait_for_timeout(600)
    assert page.evaluate(FAULTS) == []
    drawn(page, 3)
    assert page.evaluate("window.shift") <= 0.02
    assert page.evaluate(FAULTS) == []
    page.click("#gallery li:last-child >> text=Delete")
    draw(page, "<begin_of_image>", n=2)
    page.wait_for_selector("#failed p")
    assert page.evaluate(FAULTS) == []
    to_ask(page)
    assert page.evaluate(FAULTS) == []
    model.generate("a red circle", seed=0)[0].image.save(tmp_path / "red.png")
    choose_photo(page, tmp_path / "red.png")
    page.fill("[name=question]", "x" * 200)
    assert page.evaluate(FAULTS) == []
    ask(page, "What colour is the circle?")
    answers(page, 1)
    ask(page, "<image_placeholder>" + "x" * 200)
    page.wait_for_selector("#talk .wrong")
    assert page.evaluate(FAULTS) == []


def test_pictures_of_the_guide(visit, slow, tmp_path):
    """docs/page-draw.png and docs/page-ask.png; JANUS_SCREENSHOTS=docs makes them anew."""
    folder = os.environ.get("JANUS_SCREENSHOTS", tmp_path)
    page = visit(color_scheme="light", viewport={"width": 900, "height": 1010}).open()
    draw(page, "a red circle", n=2, seed=0)
    drawn(page, 2)
    page.wait_for_timeout(500)
    draw(page, "a small blue square left of a green triangle", n=2, seed=1)
    page.wait_for_function("() => document.querySelectorAll('.job[data-partials=\"2\"]').length === 2")
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=f"{folder}/page-draw.png")
    drawn(page, 4)
    page.click("#gallery li:last-child >> text=Ask about it")
    for count, question in enumerate(("What colour is the circle?", "What shape is it?"), 1):
        ask(page, question)
        answers(page, count)
    page.set_viewport_size({"width": 900, "height": 680})
    page.screenshot(path=f"{folder}/page-ask.png")
