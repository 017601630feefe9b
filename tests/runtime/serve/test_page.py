"""The page in a real browser, over a real server and janus-nano."""

import base64
import io
import json
import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from tests.runtime.serve.conftest import serving

BROWSER = os.environ.get("JANUS_BROWSER") or next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
# As a container needs it, and without calls to its maker.
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip
PATIENCE_MS = 30_000
RED = Image.new("RGB", (40, 30), "red")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser here; apt install chromium, or name one in JANUS_BROWSER")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    with playwright.sync_playwright() as opened:
        browser = opened.chromium.launch(executable_path=BROWSER, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def own(model):
    """A server whose queue holds what these tests ask at once."""
    with serving(model, max_queue=64) as client:
        yield client


@pytest.fixture
def slow(model, monkeypatch):
    """Steps long enough for a person to act between them; `slow(seconds)` makes them longer or shorter."""
    real, wait = model._engines.predict, [0.03]
    monkeypatch.setattr(model._engines, "predict", lambda *given: (time.sleep(wait[0]), real(*given))[1])
    return lambda seconds: wait.__setitem__(0, seconds)


class Watched:
    """A page, and what must not happen on one."""

    def __init__(self, browser, server, **options):
        self.context = browser.new_context(viewport={"width": 1100, "height": 900}, **options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.server = server
        self.wrong, self.asked = [], []

    def open(self, path="/"):
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: self._note(message))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(self.server.url + path)
        page.wait_for_selector("body[data-ready]")
        return page

    def _note(self, message):
        # A refusal of the server is written there by the browser itself.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)

    def close(self):
        self.context.close()
        assert self.wrong == [], "script errors, and breaches of the content policy, which the browser writes to the console"
        assert [url for url in self.asked if not url.startswith((self.server.url, "data:", "blob:"))] == []


@pytest.fixture
def watched(browser, own):
    opened = Watched(browser, own)
    yield opened
    opened.close()


@pytest.fixture
def page(watched):
    return watched.open()


def draw(page, prompt, n=1, seed=None, **fields):
    page.fill("[name=prompt]", prompt)
    page.select_option("[name=n]", str(n))
    page.fill("[name=seed]", "" if seed is None else str(seed))
    for name, value in fields.items():
        page.fill(f"[name={name}]", str(value))
    page.click("#draw-form .main")


def drawn(page, count):
    """The pictures of the gallery, the newest first."""
    done = "document.querySelectorAll('#gallery > li').length === count && !document.querySelector('#gallery > .job:not(:has(.wrong))')"
    page.wait_for_function(f"count => {done}", arg=count)
    return [bytes_of(page, url) for url in page.eval_on_selector_all("#gallery .frame img", "images => images.map(image => image.src)")]


def bytes_of(page, url):
    code = """async url => {
        const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
        return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
    }"""
    # The policy lets the page ask its server alone, so its own pictures are read from where they came.
    return base64.b64decode(page.evaluate(code, url)) if not url.startswith("blob:") else _of_blob(page, url)


def _of_blob(page, url):
    code = """url => new Promise(resolve => {
        const image = new Image();
        image.onload = () => {
            const canvas = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
            canvas.getContext("2d").drawImage(image, 0, 0);
            resolve(canvas.toDataURL("image/png").split(",")[1]);
        };
        image.src = url;
    })"""
    return base64.b64decode(page.evaluate(code, url))


def pixels(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def answers(page, count):
    page.wait_for_function("count => document.querySelectorAll('#talk .assistant .buttons').length === count", arg=count)
    return [text.strip() for text in page.eval_on_selector_all("#talk .assistant > p", "all => all.map(each => each.textContent)")]


def said(text):
    """The stream of an answer."""
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"


def to_ask(page):
    page.click("#tab-ask")


def transfer(page, content, name="red.png"):
    """A DataTransfer with a picture in it, as pasting and dropping give."""
    code = """([base64, name]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], name, { type: "image/png" }));
        return transfer;
    }"""
    return page.evaluate_handle(code, [base64.b64encode(content).decode(), name])


class TestDraw:
    def test_a_picture_appears_while_it_is_drawn(self, page, slow):
        draw(page, "a red circle", seed=0)
        page.wait_for_selector("#gallery .job[data-partials]")
        assert page.locator("#gallery progress").get_attribute("value") is not None
        assert "left" in page.inner_text(".job .told p")
        (picture,) = drawn(page, 1)
        found = pixels(picture).astype(int)
        red = (found[..., 0] > 150) & (found[..., 1] < 90) & (found[..., 2] < 90)
        assert 30 < red.sum() < 2000, "a red circle, and not a red ground"

    def test_a_seed_gives_the_picture_of_the_command(self, page, model):
        draw(page, "a small blue square", n=3, seed=7)
        found = drawn(page, 3)
        expected = model.generate("a small blue square", n=3, seed=7)
        assert {pixels(each).tobytes() for each in found} == {np.asarray(picture.image).tobytes() for picture in expected}

    def test_settings_reach_the_server_and_come_back(self, page, model):
        draw(page, "a red circle", seed=3, guidance_scale=2, temperature=0.5)
        (found,) = drawn(page, 1)
        (expected,) = model.generate("a red circle", seed=3, cfg_weight=2.0, temperature=0.5)
        assert np.array_equal(pixels(found), np.asarray(expected.image))
        assert "seed 3 · 64x64 · guidance 2 · temp. 0.5" in page.inner_text("#gallery li")
        page.fill("[name=guidance_scale]", "9")
        page.click("#gallery >> text=Use its settings")
        values = [page.input_value(f"[name={name}]") for name in ("prompt", "seed", "guidance_scale", "temperature")]
        assert values == ["a red circle", "3", "2", "0.5"]
        page.click("#random-seed")
        assert page.input_value("[name=seed]") == ""

    def test_a_larger_size(self, page):
        page.select_option("[name=size]", "512x512")
        draw(page, "a red circle", seed=0)
        assert pixels(drawn(page, 1)[0]).shape == (512, 512, 3)

    def test_one_of_four_is_cancelled(self, page, slow, model):
        draw(page, "a red circle", n=4, seed=0)
        page.wait_for_function("() => document.querySelectorAll('#gallery progress[value]').length === 4")
        page.click("#gallery li:nth-child(2) >> text=Cancel")
        kept = {pixels(each).tobytes() for each in drawn(page, 3)}
        expected = model.generate("a red circle", n=4, seed=0)
        assert kept == {np.asarray(expected[i].image).tobytes() for i in (0, 2, 3)}

    def test_enlarge_download_delete(self, page, model):
        draw(page, "a red circle", n=2, seed=0)
        drawn(page, 2)
        page.click("#gallery li:first-child .frame")
        assert page.locator("#large[open] img").get_attribute("alt") == "a red circle"
        page.keyboard.press("Escape")
        with page.expect_download() as download:
            page.click("#gallery li:first-child >> text=Download")
        with Image.open(download.value.path()) as saved:
            assert saved.text["prompt"] == "a red circle" and saved.text["seed"] in ("0", "1")
            assert download.value.suggested_filename == f"a-red-circle-seed{saved.text['seed']}.png"
        page.click("#gallery li:first-child >> text=Delete")
        drawn(page, 1)

    def test_a_double_click_is_one_wish(self, page, slow):
        page.fill("[name=prompt]", "a red circle")
        page.dblclick("#draw-form .main")
        page.wait_for_selector("#gallery progress[value]")
        assert page.locator("#gallery li").count() == 4
        page.locator("#gallery li:nth-child(2) >> text=Cancel").dblclick()
        drawn(page, 3)

    def test_enlarged_is_larger(self, page):
        draw(page, "a red circle", seed=0)
        drawn(page, 1)
        small = page.locator("#gallery .frame").bounding_box()["width"]
        page.click("#gallery .frame")
        assert page.locator("#large img").bounding_box()["width"] > 2 * small

    def test_what_the_server_refuses(self, page):
        draw(page, "a red circle <begin_of_image>")
        page.wait_for_selector(".job .wrong")
        assert "reserved token" in page.inner_text(".job .wrong")
        page.click("#gallery >> text=Remove")
        assert page.locator("#gallery li").count() == 0 and "reserved" not in page.input_value("[name=prompt]")

    def test_an_empty_prompt_is_not_sent(self, page, watched):
        page.click("#draw-form .main")
        assert not [url for url in watched.asked if "generations" in url]


class TestAsk:
    def test_a_photo_is_chosen_and_two_questions_asked(self, page, tmp_path, model):
        picture = model.generate("a red circle", seed=0)[0].image
        picture.save(tmp_path / "red.png")
        to_ask(page)
        page.set_input_files("[name=photo]", tmp_path / "red.png")
        page.fill("[name=question]", "What colour is the circle?")
        page.click("#ask-form .main")
        assert answers(page, 1) == ["red"]
        page.fill("[name=question]", "What shape is it?")
        page.keyboard.press("Enter")
        assert len(answers(page, 2)) == 2 and "circle" in answers(page, 2)[1]
        page.click("text=New conversation")
        assert page.locator("#talk li").count() == 0

    @pytest.mark.parametrize("how", ["paste", "drop"])
    def test_pasted_and_dropped(self, page, how, model):
        to_ask(page)
        content = transfer(page, png(model.generate("a red circle", seed=0)[0].image))
        if how == "paste":
            page.evaluate("data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", content)
        else:
            page.dispatch_event("#ask", "drop", {"dataTransfer": content})
        page.wait_for_selector("#photos img")
        page.fill("[name=question]", "What colour is the circle?")
        page.click("#ask-form .main")
        assert answers(page, 1) == ["red"]

    def test_a_drawn_picture_goes_into_the_chat(self, page):
        draw(page, "a red circle", seed=0)
        drawn(page, 1)
        page.click("#gallery >> text=Ask about it")
        page.fill("[name=question]", "What colour is the circle?")
        page.click("#ask-form .main")
        assert answers(page, 1) == ["red"]

    def test_stop(self, page, slow):
        to_ask(page)
        page.fill("[name=question]", "What is this?")
        page.click("#ask-form .main")
        page.click("#stop")
        page.wait_for_selector("#stop", state="hidden")
        page.fill("[name=question]", "And that?")
        page.click("#ask-form .main")
        page.wait_for_selector("#talk li:nth-child(4)")

    def test_a_photo_that_is_none(self, page, tmp_path):
        (tmp_path / "no.png").write_bytes(b"this is text")
        to_ask(page)
        page.set_input_files("[name=photo]", tmp_path / "no.png")
        page.wait_for_selector("#notice:not([hidden])")
        assert page.inner_text("#notice").startswith("no.png is no picture") and page.locator("#photos img").count() == 0

    def test_what_the_server_refuses_is_typed_still(self, page, tmp_path):
        RED.save(tmp_path / "red.png")
        to_ask(page)
        page.set_input_files("[name=photo]", tmp_path / "red.png")
        page.wait_for_selector("#photos img")
        page.fill("[name=question]", "What is <image_placeholder>?")
        page.click("#ask-form .main")
        page.wait_for_selector("#talk .wrong")
        page.wait_for_selector("#photos img")
        assert page.input_value("[name=question]") == "What is <image_placeholder>?"
        page.fill("[name=question]", "What is this?")
        page.click("#ask-form .main")
        answers(page, 1)
        assert page.locator("#talk .wrong").count() == 0

    def test_a_question_without_words_is_not_sent(self, page, watched):
        to_ask(page)
        page.click("#ask-form .main")
        assert page.evaluate("document.querySelector('[name=question]').validationMessage") == "Type a question."
        assert not [url for url in watched.asked if "completions" in url]

    @pytest.mark.parametrize(
        "text", ["<img src=x onerror=alert(1)><script>alert(2)</script>", "x" * 7000, "مرحبا שלום 👩‍👩‍👧 🎨", "**no** `markup`"]
    )
    def test_text_shows_as_itself(self, page, text):
        page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=said("Yes.")))
        to_ask(page)
        page.fill("[name=question]", text)
        page.click("#ask-form .main")
        page.wait_for_selector("#talk li")
        assert page.text_content("#talk .user p") == text
        assert page.locator("#talk img, #talk script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def test_answers_show_as_themselves(self, page):
        evil = '<img src=x onerror="window.hit=1"> & **x** \u202e'
        page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=said(evil)))
        to_ask(page)
        page.fill("[name=question]", "What?")
        page.click("#ask-form .main")
        page.wait_for_selector("#talk .assistant .buttons")
        assert page.text_content("#talk .assistant > p") == evil and page.evaluate("window.hit") is None


class TestLasting:
    def test_a_reload_keeps_what_was_typed_and_drawn(self, page):
        draw(page, "a red circle", n=2, seed=5)
        before = drawn(page, 2)
        page.fill("[name=prompt]", "three yellow cro")
        to_ask(page)
        page.fill("[name=question]", "What is th")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.is_visible("#ask") and page.input_value("[name=question]") == "What is th"
        assert page.input_value("[name=prompt]") == "three yellow cro" and page.input_value("[name=seed]") == "5"
        assert drawn(page, 2) == before

    def test_a_reload_keeps_the_conversation(self, page, model):
        draw(page, "a red circle", seed=0)
        drawn(page, 1)
        page.click("#gallery >> text=Ask about it")
        page.wait_for_selector("#photos img")
        page.fill("[name=question]", "What colour is the circle?")
        page.click("#ask-form .main")
        answers(page, 1)
        page.reload()
        page.wait_for_selector("#talk .user img")
        assert answers(page, 1) == ["red"]
        page.fill("[name=question]", "What shape is it?")
        page.click("#ask-form .main")
        assert "circle" in answers(page, 2)[1]

    def test_a_reload_while_drawing_can_be_made_good(self, page, slow):
        draw(page, "a red circle", n=2, seed=0)
        page.wait_for_selector("#gallery .job[data-partials]")
        page.reload()
        page.wait_for_selector(".job:nth-child(2) .wrong")
        assert page.inner_text(".job:nth-child(2) .wrong").startswith("The page was loaded again while")
        slow(0)
        for _ in range(2):
            page.click(".job:has(.wrong) >> text=Try again")
        drawn(page, 2)
        page.reload()
        page.wait_for_selector("body[data-ready]")
        drawn(page, 2)

    def test_two_tabs_keep_to_themselves(self, watched):
        first, second = watched.open(), watched.open()
        draw(first, "a red circle", n=2, seed=1)
        draw(second, "a blue square", seed=2)
        drawn(first, 2)
        drawn(second, 1)
        second.reload()
        second.wait_for_selector("body[data-ready]")
        assert len(drawn(second, 1)) == 1 and second.input_value("[name=prompt]") == "a blue square"


class TestServer:
    def test_it_goes_away_while_drawing_and_comes_back(self, browser, model, slow):
        with serving(model, max_queue=64) as first:
            port = first.address[1]
            watched = Watched(browser, first)
            page = watched.open()
            draw(page, "a red circle", seed=0)
            slow(0.5)
            page.wait_for_selector("#gallery progress[value]")
        page.wait_for_selector(".job .wrong")
        said = page.inner_text(".job .wrong")
        assert "server" in said.lower() and "try again" in said.lower() and page.input_value("[name=prompt]") == "a red circle"
        draw(page, "a blue square", seed=1)
        page.wait_for_selector(".job:nth-child(1) .wrong")
        assert page.inner_text(".job:nth-child(1) .wrong").startswith("The server does not answer. See that it runs")
        slow(0)
        with serving(model, port=port, max_queue=64):
            for _ in range(2):
                page.click(".job:has(.wrong) >> text=Try again")
            drawn(page, 2)
            watched.close()

    def test_a_key_is_asked_for_once(self, browser, model):
        with serving(model, max_queue=64, api_key="opensesame") as server:
            watched = Watched(browser, server)
            page = watched.context.new_page()
            page.goto(server.url)
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
            watched.close()

    def test_a_full_queue_is_a_sentence(self, page):
        page.route(
            "**/v1/images/generations",
            lambda route: route.fulfill(status=429, headers={"retry-after": "7"}, json={"error": {"message": "full", "code": "busy"}}),
        )
        draw(page, "a red circle")
        page.wait_for_selector(".job .wrong")
        assert page.inner_text(".job .wrong") == "The server is busy. Try again in 7 s."

    @pytest.mark.parametrize(("tasks", "shown"), [(["understanding"], "ask"), (["generation"], "draw")])
    def test_it_offers_what_the_bundle_can(self, watched, tasks, shown):
        page = watched.context.new_page()

        def answer(route):
            models = route.fetch().json()
            models["data"][0]["tasks"] = tasks
            route.fulfill(json=models)

        page.route("**/v1/models", answer)
        page.goto(watched.server.url)
        page.wait_for_selector("body[data-ready]")
        assert page.locator("[role=tab]:visible").count() == 1 and page.is_visible(f"#{shown}")


class TestWhatItIsMadeOf:
    def test_by_keyboard_alone(self, page):
        """Drawing, then asking about what was drawn."""
        page.locator("#tab-draw").focus()
        page.keyboard.press("Tab")
        page.keyboard.type("a red circle")
        for _ in range(5):
            page.keyboard.press("Tab")
        page.keyboard.type("0")
        page.keyboard.press("Enter")
        drawn(page, 4)
        page.locator("#gallery li:first-child .frame").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#large[open]")
        page.keyboard.press("Escape")
        page.locator("#gallery li:first-child >> text=Ask about it").focus()
        page.keyboard.press("Space")
        page.wait_for_selector("#photos img")
        page.keyboard.type("What colour is the circle?")
        page.keyboard.press("Enter")
        assert answers(page, 1) == ["red"]
        page.locator("#tab-ask").focus()
        page.keyboard.press("ArrowLeft")
        assert page.is_visible("#draw")

    def test_axe_finds_nothing_serious(self, page, slow):
        """In every state: empty, drawing, drawn, enlarged, refused, asking, answered, with a photo."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install '.[dev]'").Axe()

        def check(state):
            found = [each for each in axe.run(page).response["violations"] if each["impact"] in ("serious", "critical")]
            assert found == [], (state, [(each["id"], each["nodes"][0]["html"]) for each in found])

        check("empty")
        draw(page, "a red circle", n=2, seed=0)
        page.wait_for_selector("#gallery .job[data-partials]")
        check("drawing")
        drawn(page, 2)
        check("drawn")
        page.click("#gallery li:first-child .frame")
        check("enlarged")
        page.keyboard.press("Escape")
        draw(page, "<begin_of_image>")
        page.wait_for_selector(".job .wrong")
        check("refused")
        page.click("#gallery li:last-child >> text=Ask about it")
        page.wait_for_selector("#photos img")
        check("photo")
        page.fill("[name=question]", "What colour is the circle?")
        page.click("#ask-form .main")
        answers(page, 1)
        check("answered")

    @pytest.mark.parametrize("width", [1440, 768, 360])
    @pytest.mark.parametrize("colours", ["light", "dark"])
    def test_nothing_is_cut_and_nothing_shifts(self, browser, own, slow, width, colours):
        watched = Watched(browser, own, color_scheme=colours)
        page = watched.open()
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("""() => {
            window.shift = 0;
            new PerformanceObserver(list => {
                for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
            }).observe({ type: "layout-shift", buffered: true });
        }""")
        draw(page, "a red circle and a very long prompt that goes on and on " * 3, n=2, seed=0)
        page.wait_for_selector("#gallery .job[data-partials]")
        # A click's own shifts count as its effect for half a second.
        page.wait_for_timeout(600)
        drawn(page, 2)
        assert page.evaluate("window.shift") <= 0.02
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        to_ask(page)
        page.fill("[name=question]", "x" * 200)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        watched.close()

    def test_pictures_of_the_guide(self, browser, own, slow, tmp_path):
        """docs/page-draw.png and docs/page-ask.png; JANUS_SCREENSHOTS=docs makes them anew."""
        folder = os.environ.get("JANUS_SCREENSHOTS", tmp_path)
        watched = Watched(browser, own, color_scheme="light")
        page = watched.open()
        page.set_viewport_size({"width": 900, "height": 760})
        draw(page, "a red circle", n=2, seed=0)
        drawn(page, 2)
        draw(page, "a small blue square left of a green triangle", n=2, seed=1)
        page.wait_for_function("() => document.querySelectorAll('.job[data-partials=\"2\"]').length === 2")
        page.screenshot(path=f"{folder}/page-draw.png")
        drawn(page, 4)
        page.click("#gallery li:last-child >> text=Ask about it")
        for count, question in enumerate(("What colour is the circle?", "What shape is it?"), 1):
            page.fill("[name=question]", question)
            page.click("#ask-form .main")
            answers(page, count)
        page.set_viewport_size({"width": 900, "height": 640})
        page.screenshot(path=f"{folder}/page-ask.png")
        watched.close()
