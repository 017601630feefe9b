from hypothesis import given
from hypothesis import strategies as st

from janus_runtime.serve.stop_strings import StopStrings

# Few letters, so that stop strings occur, overlap and begin without ending.
TEXT = st.text("ab", max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=4)


def cut(text, stops):
    """The text before the first stop string."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


@given(st.lists(TEXT, max_size=8), STOPS)
def test_the_text_ends_before_the_first_stop_however_it_is_chunked(chunks, stops):
    strings, shown, text = StopStrings(stops), "", ""
    for chunk in chunks:
        text += chunk
        shown += strings.feed(chunk)
        # Nothing is shown that a stop string, once it is whole, would take back.
        assert cut(text, stops).startswith(shown)
        assert strings.found == any(stop in text for stop in stops)
        if strings.found:
            break
    shown += strings.finish()
    assert shown == cut(text, stops) and strings.finish() == ""


@given(st.lists(TEXT, max_size=8), STOPS)
def test_no_more_is_held_back_than_may_be_the_beginning_of_a_stop(chunks, stops):
    strings, shown, text = StopStrings(stops), "", ""
    for chunk in chunks:
        text += chunk
        shown += strings.feed(chunk)
        if strings.found:
            return
        held = text[len(shown) :]
        assert text == shown + held and (not held or any(stop.startswith(held) and stop != held for stop in stops))


def test_without_stop_strings_all_is_shown_at_once():
    strings = StopStrings(())
    assert [strings.feed("a"), strings.feed("b"), strings.finish()] == ["a", "b", ""] and not strings.found


def test_nothing_after_a_stop():
    strings = StopStrings(["X"])
    assert [strings.feed("aX"), strings.feed("b"), strings.finish()] == ["a", "", ""]
