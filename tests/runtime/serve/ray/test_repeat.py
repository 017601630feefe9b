"""A client hears each thing once, however many replicas it took."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from janus_runtime.errors import JanusError
from janus_runtime.events import Drawn, Failed, Finished, Partial, Progress, Said, Started, Usage, Waiting
from janus_runtime.serve.ray.repeat import Repeat

DRAWING = [Started(2.0), Progress(1, 4), Partial(0, 0, "p0"), Progress(2, 4), Progress(3, 4), Partial(0, 1, "p1"),
           Progress(4, 4), Drawn(0, "picture"), Finished(Usage(1, 0, 0, 4), None)]  # fmt: skip


def hear(*runs):
    """What comes of runs of which all but the last broke off."""
    repeat, heard = Repeat(), []
    for run in runs:
        repeat.begin()
        heard += [each for event in run if (each := repeat.hear(event)) is not None]
    return heard


@pytest.mark.parametrize("first", range(len(DRAWING)))
@pytest.mark.parametrize("second", range(0, len(DRAWING), 3))
def test_a_drawing_goes_on_where_it_was(first, second):
    assert hear(DRAWING[:first], DRAWING[:second], DRAWING) == DRAWING


def test_who_was_being_drawn_is_not_told_to_wait():
    assert hear([Started(1.0)], [Waiting(3), Started(2.0), Progress(1, 4)]) == [Started(1.0), Progress(1, 4)]


@given(st.data())
def test_an_answer_goes_on_where_it_was_however_it_is_cut(data):
    """Chunks may be cut otherwise the second time: others shared the steps."""
    text = data.draw(st.text("ab", max_size=12))

    def cut():
        places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=4)) | {0, len(text)})
        return [Said(text[begin:end], tuple(range(begin, end))) for begin, end in zip(places, places[1:], strict=False)]

    broken, whole = cut(), cut()
    broken = broken[: data.draw(st.integers(0, len(broken)))]
    heard = hear(broken, [*whole, Finished(Usage(1, 0, 0, len(text)), "eos")])
    assert "".join(each.text for each in heard[:-1]) == text
    assert [number for each in heard[:-1] for number in each.text_ids] == list(range(len(text)))
    assert isinstance(heard[-1], Finished)


@pytest.mark.parametrize("second", [[Said("a wolf", (1, 2))], [Said("a", (1,)), Finished(Usage(1, 0, 0, 1), "eos")]])
def test_another_answer_is_an_error(second):
    with pytest.raises(JanusError, match="gives a different answer; send the request again"):
        hear([Said("a red", (1, 2))], second)


def test_a_failure_is_heard():
    failed = Failed(JanusError("no"))
    assert hear([Started(1.0), failed]) == [Started(1.0), failed]
