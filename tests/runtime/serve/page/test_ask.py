"""Asking on the page."""

import pytest

from tests.runtime.serve.page.visitor import RED, answer_always, answers, ask, choose_photo, draw, drawn, to_ask, transfer


@pytest.fixture
def circle(model, tmp_path):
    model.generate("a red circle", seed=0)[0].image.save(tmp_path / "red.png")
    return tmp_path / "red.png"


@pytest.fixture
def page(page):
    to_ask(page)
    return page


class TestPhotos:
    def test_one_is_chosen_and_two_questions_asked(self, page, circle):
        choose_photo(page, circle)
        ask(page, "What colour is the circle?")
        assert answers(page, 1) == ["red"]
        page.fill("[name=question]", "What shape is it?")
        page.keyboard.press("Enter")
        assert "circle" in answers(page, 2)[1]

    @pytest.mark.parametrize("how", ["paste", "drop"])
    def test_pasted_and_dropped(self, page, how, circle):
        content = transfer(page, circle.read_bytes())
        if how == "paste":
            page.evaluate("data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", content)
        else:
            page.dispatch_event("#ask", "dragover", {"dataTransfer": content})
            assert page.evaluate("document.body.className") == "dropping"
            page.dispatch_event("#ask", "drop", {"dataTransfer": content})
            assert page.evaluate("document.body.className") == ""
        page.wait_for_selector("#photos img")
        ask(page, "What colour is the circle?")
        assert answers(page, 1) == ["red"]

    def test_one_that_is_dropped_while_drawing_is_asked_about(self, page, circle):
        """The browser would show it in place of the page."""
        page.click("#tab-draw")
        page.dispatch_event("body", "drop", {"dataTransfer": transfer(page, circle.read_bytes())})
        page.wait_for_selector("#photos img:visible")

    def test_several_in_one_question(self, page, tmp_path):
        asked = []
        page.on("request", lambda request: asked.append(request) if "completions" in request.url else None)
        files = []
        for name in ("red", "blue", "green"):
            files.append(tmp_path / f"{name}.png")
            RED.save(files[-1])
        page.set_input_files("[name=photo]", files)
        page.wait_for_function("() => document.querySelectorAll('#photos img').length === 3")
        page.click("[aria-label='Remove blue.png']")
        ask(page, "What is this?")
        answers(page, 1)
        assert [part["type"] for part in asked[0].post_data_json["messages"][0]["content"]] == ["image_url", "image_url", "text"]
        assert page.locator("#talk .user img").count() == 2 and page.locator("#photos img").count() == 0

    def test_a_drawn_picture_goes_into_the_chat(self, page):
        page.click("#tab-draw")
        draw(page, "a red circle", seed=0)
        drawn(page, 1)
        page.click("#gallery >> text=Ask about it")
        page.wait_for_selector("#photos img")
        ask(page, "What colour is the circle?")
        assert answers(page, 1) == ["red"]

    def test_a_file_that_is_no_picture(self, page, tmp_path):
        (tmp_path / "no.png").write_bytes(b"this is text")
        page.set_input_files("[name=photo]", tmp_path / "no.png")
        page.wait_for_selector("#notice:not([hidden])")
        assert page.inner_text("#notice").startswith("no.png is no picture") and page.locator("#photos img").count() == 0
        RED.save(tmp_path / "yes.png")
        choose_photo(page, tmp_path / "yes.png")
        assert not page.is_visible("#notice")


class TestAnswers:
    def test_they_stream(self, page, slow, circle):
        slow(0.1)
        choose_photo(page, circle)
        ask(page, "Describe the picture.")
        page.wait_for_function("() => (document.querySelector('#talk .assistant > p')?.textContent ?? '…') !== '…'")
        begun = page.text_content("#talk .assistant > p")
        (whole,) = answers(page, 1)
        assert whole.startswith(begun) and len(begun) < len(whole)

    def test_stop_keeps_what_was_said(self, page, slow, circle):
        slow(0.5)
        choose_photo(page, circle)
        ask(page, "Describe the picture.")
        page.wait_for_function("() => (document.querySelector('#talk .assistant > p')?.textContent ?? '…') !== '…'")
        page.click("#stop")
        (part,) = answers(page, 1)
        slow(0)
        ask(page, "What colour is the circle?")
        assert answers(page, 2)[0] == part

    def test_stop_before_the_first_word_gives_the_question_back(self, page, circle):
        held = []
        page.route("**/v1/chat/completions", lambda route: held.append(route))
        choose_photo(page, circle)
        ask(page, "What colour is the circle?")
        page.click("#stop")
        page.wait_for_selector("#stop", state="hidden")
        assert page.locator("#talk li").count() == 0
        assert page.input_value("[name=question]") == "What colour is the circle?" and page.locator("#photos img").count() == 1
        page.unroute("**/v1/chat/completions")
        page.click("#ask-form .main:visible")
        assert answers(page, 1) == ["red"]

    def test_copy(self, visitor, page):
        visitor.context.grant_permissions(["clipboard-read"])
        answer_always(page, " Two\nlines. ")
        ask(page, "What?")
        answers(page, 1)
        page.click("#talk >> text=Copy")
        page.wait_for_selector("#talk >> text=Copied")
        assert page.evaluate("navigator.clipboard.readText()") == "Two\nlines."
        page.wait_for_selector("#talk button:text-is('Copy')")

    def test_no_answer(self, page):
        answer_always(page, " ")
        ask(page, "What?")
        page.wait_for_selector("#talk .wrong")
        assert "no answer" in page.inner_text("#talk .wrong") and page.input_value("[name=question]") == "What?"

    def test_the_end_stays_in_view(self, page):
        page.set_viewport_size({"width": 700, "height": 500})
        answer_always(page, "line\n" * 10)
        for count in range(1, 4):
            page.fill("[name=question]", "What?")
            page.keyboard.press("Enter")
            answers(page, count)
            assert page.evaluate("document.getElementById('ask-form').getBoundingClientRect().bottom <= innerHeight + 1")

    @pytest.mark.parametrize(
        "text", ["<img src=x onerror=alert(1)><script>alert(2)</script>", "x" * 10_000, "مرحبا שלום 👩‍👩‍👧 🎨", "**no** `markup`"]
    )
    def test_questions_show_as_themselves(self, page, text):
        answer_always(page, "Yes.")
        ask(page, text)
        answers(page, 1)
        assert page.text_content("#talk .user p") == text
        assert page.locator("#talk img, #talk script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    @pytest.mark.parametrize("text", ['<img src=x onerror="window.hit=1"> & **x** \u202e', "x" * 10_000, "مرحبا 🎨"])
    def test_answers_show_as_themselves(self, page, text):
        answer_always(page, text)
        ask(page, "What?")
        assert answers(page, 1) == [text] and page.evaluate("window.hit") is None
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


class TestConversation:
    def test_begun_anew_and_had_back(self, page, circle):
        choose_photo(page, circle)
        ask(page, "What colour is the circle?")
        answers(page, 1)
        page.click("text=New conversation")
        page.wait_for_selector("#talk li", state="detached")
        assert page.is_visible("#questions")
        page.click("#ask .undo >> text=Undo")
        assert answers(page, 1) == ["red"] and not page.is_visible("#questions")
        ask(page, "What shape is it?")
        assert "circle" in answers(page, 2)[1]
        page.click("text=New conversation")
        page.wait_for_selector("#talk li", state="detached")
        ask(page, "What is this?")
        assert not page.is_visible("#ask .undo")
        answers(page, 1)

    def test_begun_anew_while_it_answers(self, page, slow, circle):
        slow(0.5)
        choose_photo(page, circle)
        ask(page, "Describe the picture.")
        page.wait_for_function("() => (document.querySelector('#talk .assistant > p')?.textContent ?? '…') !== '…'")
        page.click("text=New conversation")
        page.wait_for_selector("#talk li", state="detached")
        page.click("#ask .undo >> text=Undo")
        assert len(answers(page, 1)) == 1 and page.locator("#talk .user img").count() == 1

    def test_an_example_can_be_asked(self, page, circle):
        choose_photo(page, circle)
        page.click("#questions >> text=What colour is the circle?")
        page.keyboard.press("Enter")
        assert answers(page, 1) == ["red"]
        assert not page.is_visible("#questions")

    def test_what_was_typed_before_an_example_can_be_had_back(self, page):
        page.fill("[name=question]", "my own words")
        page.click("#questions >> text=Describe the picture.")
        page.click("#questions >> text=What colour is the circle?")
        page.click("#ask .undo >> text=Undo")
        assert page.input_value("[name=question]") == "my own words" and not page.is_visible("#ask .undo")

    def test_what_the_server_refuses_is_typed_still(self, page, tmp_path):
        RED.save(tmp_path / "red.png")
        choose_photo(page, tmp_path / "red.png")
        ask(page, "What is <image_placeholder>?")
        page.wait_for_selector("#talk .wrong")
        assert page.locator("#photos img").count() == 1
        assert page.input_value("[name=question]") == "What is <image_placeholder>?"
        ask(page, "What is this?")
        answers(page, 1)
        assert page.locator("#talk .wrong").count() == 0

    def test_a_refusal_does_not_replace_what_was_typed_meanwhile(self, page, slow):
        slow(0.3)
        page.route("**/v1/chat/completions", lambda route: (page.wait_for_timeout(300), route.abort()))
        ask(page, "What is this?")
        page.fill("[name=question]", "And that?")
        page.wait_for_selector("#talk .wrong")
        assert page.input_value("[name=question]") == "What is this?\nAnd that?"

    def test_a_question_without_words_is_not_sent(self, page, visitor):
        page.click("#ask-form .main:visible")
        assert page.evaluate("document.querySelector('[name=question]').validationMessage") == "Type a question."
        assert visitor.num_asked("completions") == 0
