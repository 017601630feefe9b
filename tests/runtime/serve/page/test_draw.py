"""Drawing on the page."""

import numpy as np
import pytest
from PIL import Image

import janus_runtime
from janus_runtime.cli import main
from tests.runtime.serve.conftest import serving
from tests.runtime.serve.page.visitor import RED, choose_photo, draw, drawn, list_model, pixels_of, png, same, to_ask, transfer


def words(page, selector="#gallery li"):
    """What stands there; on the newest picture's card by default."""
    return page.inner_text(selector).replace("\xa0", " ")


def is_red_circle(pixels):
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return 30 < ((red > 150) & (green < 90) & (blue < 90)).sum() < 2000


class TestPicture:
    def test_it_appears_while_it_is_drawn(self, page, slow):
        draw(page, "a red circle", seed=0)
        page.wait_for_selector("#gallery .job[data-partials] img:visible")
        assert page.locator("#gallery progress").get_attribute("value") is not None
        assert "left" in page.inner_text(".job .told p")
        (picture,) = drawn(page, 1)
        assert is_red_circle(picture)

    def test_a_seed_gives_the_picture_of_the_command(self, page, run, tmp_path):
        draw(page, "a small blue square", n=3, seed=7)
        found = drawn(page, 3)
        done = run(main, "generate", "a small blue square", "-n", 3, "--seed", 7, "--backend", "cpu", "--out", tmp_path)
        assert done.exit_code == 0
        files = [np.asarray(Image.open(file).convert("RGB")) for file in tmp_path.glob("*.png")]
        assert {each.tobytes() for each in found} == {each.tobytes() for each in files} and len(files) == 3

    def test_it_waits_for_those_before_it(self, visitor, slow):
        first, second = visitor.open(), visitor.open()
        draw(first, "a red circle", n=4, seed=0)
        first.wait_for_function("() => document.querySelectorAll('#gallery progress[value]').length === 4")
        draw(second, "a red circle", n=2, seed=9)
        second.wait_for_selector(".job .told p:text('Waiting: 1 ahead of it…')")
        slow(0)
        drawn(second, 2)
        drawn(first, 4)

    def test_no_more_than_four_are_asked_for_at_once(self, page, visitor, slow):
        """A browser opens six connections to a server; a question must find one."""
        slow(0.2)
        draw(page, "a red circle", n=4, seed=0)
        page.wait_for_function("() => document.querySelectorAll('#gallery progress[value]').length === 4")
        page.wait_for_timeout(600)
        draw(page, "a blue square", n=4, seed=0)
        page.wait_for_selector("#gallery li:nth-child(8)")
        assert visitor.num_asked("generations") == 4
        page.click("#gallery li:nth-child(4) >> text=Cancel")
        slow(0)
        drawn(page, 7)
        assert visitor.num_asked("generations") == 7

    def test_one_of_four_is_cancelled(self, page, slow, model):
        draw(page, "a red circle", n=4, seed=0)
        page.wait_for_function("() => document.querySelectorAll('#gallery progress[value]').length === 4")
        page.click("#gallery li:nth-child(2) >> text=Cancel")
        kept = drawn(page, 3)
        expected = model.generate("a red circle", n=4, seed=0)
        assert same(kept, [expected[0], expected[2], expected[3]])

    def test_a_double_click_is_one_wish(self, page, slow):
        page.fill("[name=prompt]", "a red circle")
        page.dblclick("#draw-form .main")
        page.wait_for_selector("#gallery progress[value]")
        assert page.locator("#gallery li").count() == 4
        page.locator("#gallery li:nth-child(2) >> text=Cancel").dblclick()
        drawn(page, 3)

    def test_it_is_shown_where_the_form_fills_the_window(self, page, slow):
        page.set_viewport_size({"width": 360, "height": 640})
        draw(page, "a red circle", seed=0)
        page.wait_for_selector("#gallery progress[value]")
        assert page.evaluate("document.querySelector('#gallery .told p').getBoundingClientRect().bottom <= innerHeight + 1")


class TestSettings:
    def test_they_reach_the_server_and_come_back(self, page, model):
        draw(page, "a red circle", seed=3, guidance_scale=2.3, temperature=0.55)
        found = drawn(page, 1)
        assert same(found, model.generate("a red circle", seed=3, cfg_weight=2.3, temperature=0.55))
        assert "seed 3 · 64 × 64 · guidance 2.3 · temperature 0.55" in words(page)
        page.fill("[name=prompt]", "")
        page.fill("[name=seed]", "8")
        page.fill("[name=guidance_scale]", "9")
        page.click("#gallery >> text=Reuse settings")
        values = [page.input_value(f"[name={name}]") for name in ("prompt", "seed", "guidance_scale", "temperature")]
        assert values == ["a red circle", "3", "2.3", "0.55"]
        page.click("#random-seed")
        assert page.input_value("[name=seed]") == ""

    def test_a_random_seed_is_shown_and_draws_the_same_again(self, page):
        draw(page, "a red circle", guidance_scale=1)
        (first,) = drawn(page, 1)
        page.wait_for_timeout(500)
        draw(page, "a red circle", guidance_scale=1)
        drawn(page, 2)
        page.click("#gallery li:last-child >> text=Reuse settings")
        page.wait_for_timeout(500)
        page.click("#draw-form .main")
        again = drawn(page, 3)[0]
        newest, other, oldest = (text.split(" · ")[0] for text in page.locator("#gallery .told").all_inner_texts())
        assert newest == oldest != other and np.array_equal(again, first)

    def test_a_larger_size(self, page):
        page.select_option("[name=size]", "512x512")
        draw(page, "a red circle", seed=0)
        assert drawn(page, 1)[0].shape == (512, 512, 3)

    def test_steps_where_the_bundle_has_them(self, visit, bundles):
        with janus_runtime.load(bundles("tiny-flow"), backend="cpu") as flow, serving(flow) as server:
            page = visit(server).open()
            assert page.is_visible("[name=steps]") and not page.is_visible("[name=temperature]")
            assert page.input_value("[name=steps]") == "30" and page.input_value("[name=guidance_scale]") == "2"
            assert "Usual: 30" in page.text_content("#about-steps")
            draw(page, "a red circle", seed=1, steps=3)
            found = drawn(page, 1)
            assert same(found, flow.generate("a red circle", seed=1, steps=3))
            assert "guidance 2 · 3 steps" in words(page)
            page.context.close()

    def test_each_is_explained(self, page):
        page.click("text=What they mean")
        for name, word in (("size", "64 × 64"), ("guidance_scale", "Usual: 5"), ("temperature", "Usual: 1"), ("seed", "same picture")):
            described = page.get_attribute(f"[name={name}]", "aria-describedby")
            assert word in page.inner_text(f"#{described}")
        assert not page.is_visible("#about-steps")

    def test_a_phone_shows_them_when_asked(self, visit):
        page = visit(viewport={"width": 360, "height": 740}).open()
        assert not page.is_visible("[name=seed]") and page.is_visible("#draw-form .main")
        page.click("text=Settings")
        assert page.is_visible("[name=seed]")

    def test_a_wrong_one_is_shown(self, page, visitor):
        page.fill("[name=guidance_scale]", "99")
        page.click("text=Settings")
        assert not page.is_visible("[name=guidance_scale]")
        page.fill("[name=prompt]", "a red circle")
        page.click("#draw-form .main")
        page.wait_for_selector("[name=guidance_scale]:invalid:visible")
        assert visitor.num_asked("generations") == 0


class TestPrompt:
    def test_an_example_draws_what_it_says(self, page):
        assert "circles, squares, triangles and crosses" in page.inner_text("#knows")
        page.select_option("[name=n]", "1")
        page.click("#prompts >> text=a red circle")
        page.click("#draw-form .main")
        assert is_red_circle(drawn(page, 1)[0])

    def test_other_models_have_other_examples(self, visitor):
        page = visitor.open()
        list_model(page, size="384x384")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.inner_text("#knows") == "" and page.is_visible("#prompts >> text=a red fox in the snow")

    def test_what_was_typed_before_an_example_can_be_had_back(self, page):
        page.fill("[name=prompt]", "my own words")
        page.click("#prompts >> text=three yellow crosses")
        page.click("#prompts >> text=a red circle")
        assert page.input_value("[name=prompt]") == "a red circle"
        page.click("#typed >> text=Undo")
        assert page.input_value("[name=prompt]") == "my own words" and not page.is_visible("#typed .undo")

    def test_an_empty_one_is_not_sent(self, page, visitor):
        page.click("#draw-form .main")
        assert page.evaluate("document.querySelector('[name=prompt]').validationMessage") == "Say what to draw."
        assert visitor.num_asked("generations") == 0

    def test_what_the_server_refuses(self, page):
        draw(page, "a red circle <begin_of_image>")
        page.wait_for_selector(".job .wrong")
        assert "reserved token" in page.inner_text(".job .wrong")
        page.click("#gallery >> text=Remove")
        assert page.locator("#gallery li").count() == 0 and "reserved" not in page.input_value("[name=prompt]")

    @pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)> <b>red</b> & circle", "x" * 10_000, "مرحبا שלום 👩‍👩‍👧 🎨"])
    def test_text_shows_as_itself(self, page, text):
        draw(page, text)
        drawn(page, 1)
        assert page.text_content("#gallery .said") == text
        assert page.locator("#gallery b").count() == 0 and page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def test_right_to_left(self, page):
        draw(page, "مرحبا שלום")
        drawn(page, 1)
        for selector in ("[name=prompt]", "#gallery .said"):
            assert page.evaluate("selector => getComputedStyle(document.querySelector(selector)).direction", selector) == "rtl"


class TestGallery:
    def test_enlarge(self, page):
        draw(page, "a red circle", seed=0)
        drawn(page, 1)
        small = page.locator("#gallery .frame").bounding_box()["width"]
        page.click("#gallery .frame")
        assert page.locator("#large[open] img").get_attribute("alt") == "a red circle"
        assert page.locator("#large img").bounding_box()["width"] > 2 * small
        assert "seed 0" in words(page, "#large")
        page.keyboard.press("Escape")
        assert not page.is_visible("#large")

    def test_download(self, page):
        draw(page, "a red circle", seed=4, guidance_scale=3)
        drawn(page, 1)
        with page.expect_download() as download:
            page.click("#gallery >> text=Download")
        with Image.open(download.value.path()) as saved:
            assert saved.text["prompt"] == "a red circle" and saved.text["seed"] == "4" and saved.text["cfg_weight"] == "3.0"
        assert download.value.suggested_filename == "a-red-circle-seed4.png"

    def test_deleted_pictures_can_be_had_back(self, page):
        draw(page, "a red circle", n=3, seed=0)
        before = drawn(page, 3)
        for _ in range(2):
            page.click("#gallery li:nth-child(2) >> text=Delete")
            page.wait_for_timeout(500)
        assert np.array_equal(drawn(page, 1), before[:1])
        for _ in range(2):
            page.click("#gallery-head .undo >> text=Undo")
        assert np.array_equal(drawn(page, 3), before) and not page.is_visible("#gallery-head .undo")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert np.array_equal(drawn(page, 3), before)
        page.click("#gallery li:nth-child(1) >> text=Delete")
        page.wait_for_timeout(500)
        draw(page, "a blue square", seed=0)
        assert not page.is_visible("#gallery-head .undo")
        drawn(page, 3)


class TestReference:
    """Drawing from a picture, where the server offers it."""

    @pytest.fixture
    def page(self, visit, server):
        return visit(server).open()

    def test_a_chosen_picture_is_drawn_from(self, page, tmp_path, model):
        RED.save(tmp_path / "red.png")
        page.set_input_files("[name=reference]", tmp_path / "red.png")
        page.wait_for_selector("#reference-shown img")
        draw(page, "a blue square", seed=2)
        found = drawn(page, 1)
        assert same(found, model.generate("a blue square", seed=2, image=RED))
        assert "from a picture" in words(page)
        page.reload()
        page.wait_for_selector("#reference-shown img")
        page.click("#reference-shown >> text=Remove")
        assert page.locator("#reference-shown img").count() == 0
        page.click("#gallery >> text=Reuse settings")
        page.wait_for_selector("#reference-shown img")
        page.click("#draw-form .main")
        again, first = drawn(page, 2)
        assert np.array_equal(again, first)

    def test_a_drawn_picture_and_a_photo_of_the_chat(self, page, tmp_path):
        draw(page, "a red circle", seed=0)
        drawn(page, 1)
        page.click("#gallery >> text=Draw from it")
        page.wait_for_selector("#reference-shown img")
        page.click("#reference-shown >> text=Remove")
        RED.save(tmp_path / "red.png")
        to_ask(page)
        choose_photo(page, tmp_path / "red.png")
        page.fill("[name=question]", "What is this?")
        page.click("#ask-form .main:visible")
        page.click("#talk >> text=Draw from it")
        page.wait_for_selector("#reference-shown img:visible")
        shown = pixels_of(page, page.get_attribute("#reference-shown img", "src"))
        assert np.array_equal(shown, np.asarray(RED))

    def test_a_dropped_picture_is_drawn_from(self, page):
        page.dispatch_event("body", "drop", {"dataTransfer": transfer(page, png(RED))})
        page.wait_for_selector("#reference-shown img:visible")

    def test_a_file_that_is_no_picture(self, page):
        page.dispatch_event("body", "drop", {"dataTransfer": transfer(page, b"text", "notes.txt", "text/plain")})
        page.wait_for_selector("#notice:visible")
        assert page.inner_text("#notice").startswith("notes.txt is no picture") and page.locator("#reference-shown img").count() == 0


def test_a_bundle_without_references_offers_none(page):
    draw(page, "a red circle", seed=0)
    drawn(page, 1)
    assert not page.is_visible("#reference") and page.locator("text=Draw from it").count() == 0
