"""Slots, lengths and the loop, first on a scripted model, then on a real one."""

from pathlib import Path

import numpy as np
import pytest

import janus_runtime
from janus_runtime.checks.tolerances import FP32, INT8_CACHE
from janus_runtime.checks.verify import relative_difference
from janus_runtime.decoding.host_session import HostSession
from janus_runtime.decoding.sessions import open_session
from janus_runtime.errors import NumericalError
from janus_runtime.sampling.draw import Draw
from janus_runtime.sampling.guidance import Pairs, Plain
from janus_runtime.sampling.sampler import Sampler
from testing.fakes import CountingModel
from testing.sessions import draw, prefill, step
from tests.marks import needs_int8_cache

GREEDY = Sampler(temperature=0)


def session(rows=4, max_length=20, engines=None):
    return HostSession(engines or CountingModel(), rows, max_length)


def row(*ids):
    return np.array(ids, np.float32)[:, None]


def test_a_prompt_is_a_call_of_its_own():
    """What a row is computed from does not depend on who is prefilled with it."""
    opened = session()
    logits = prefill(opened, [row(1, 2, 3), row(5)], "image")
    assert logits.argmax(-1).tolist() == [6, 5]
    assert opened.lengths.tolist() == [3, 1, 0, 0]
    assert [call["places"].tolist() for call in opened.language_model.calls] == [[2], [0]]
    assert [call["total_sequence_length"].tolist() for call in opened.language_model.calls] == [3, 1]


def test_steps_follow_each_rows_length():
    opened = session(rows=2)
    prefill(opened, [row(1, 2, 3), row(5)], "image")
    assert step(opened, np.array([1, 2], np.int32)).argmax(-1).tolist() == [7, 7]
    assert opened.lengths.tolist() == [4, 2]
    assert step(opened, np.array([0, 1], np.int32)).argmax(-1).tolist() == [7, 0]


def test_one_row_continues_where_it_stopped():
    opened = session(rows=1)
    prefill(opened, [row(1, 2)], "image")
    assert prefill(opened, [row(3, 4)], "image").argmax(-1).tolist() == [10 % 8]
    assert opened.lengths.tolist() == [4]


@pytest.mark.parametrize("length", [2, 5, 6, 10, 12])
@pytest.mark.parametrize("before", [0, 3, 5])
def test_a_prompt_is_cut_at_multiples_counted_from_its_rows_start(monkeypatch, length, before):
    monkeypatch.setattr("janus_runtime.decoding.session.GRID", 5)
    opened = session(rows=2)
    if before:
        prefill(opened, [row(*range(before))], "image", 1)
    first = len(opened.language_model.calls)
    logits = prefill(opened, [row(*range(length))], "image", 1)
    assert logits.argmax(-1).tolist() == [(sum(range(before)) + sum(range(length))) % 8]
    assert opened.lengths.tolist() == [0, before + length]
    ends = np.cumsum([before, *(call["embeds"].shape[1] for call in opened.language_model.calls[first:])]).tolist()
    assert ends == sorted({before, before + length, *(cut for cut in range(5, before + length, 5) if cut > before)})


def test_a_piece_that_fails_undoes_the_ones_before(monkeypatch):
    monkeypatch.setattr("janus_runtime.decoding.session.GRID", 5)
    engines = CountingModel(cache="int8")
    opened = session(rows=1, engines=engines)
    prefill(opened, [row(1, 2)], "image")
    real = engines.language_model._answer

    def fail_later(inputs, outputs):
        if inputs["seqlens_k"][0] > 8:
            raise OSError("gone")
        return real(inputs, outputs)

    engines.language_model._answer = fail_later
    with pytest.raises(OSError, match="gone"):
        prefill(opened, [row(*range(12))], "image")
    assert opened.lengths.tolist() == [2]
    engines.language_model._answer = real
    assert prefill(opened, [row(3, 4)], "image").argmax(-1).tolist() == [10 % 8]


def test_a_copy_has_cache_and_length():
    opened = session()
    prefill(opened, [row(1, 2, 3), row(5)], "image")
    opened.copy(0, 3)
    assert opened.lengths.tolist() == [3, 1, 0, 3]
    assert step(opened, np.array([1, 2, 1], np.int32)).argmax(-1).tolist() == [7, 7, 7]


def test_free_rows_cost_nothing():
    """Filled rows lie packed: a call is of them alone, whichever they are."""
    opened = session(rows=6)
    prefill(opened, [row(1), row(2), row(3), row(4)], "image")
    for freed, left in ((1, [1, 3, 4]), (0, [3, 4]), (3, [3])):
        opened.truncate(freed)
        assert (step(opened, np.zeros(len(left), np.int32)).argmax(-1)).tolist() == left
        assert opened.language_model.calls[-1]["embeds"].shape == (len(left), 1, 1)


def test_a_slot_is_freed_and_refilled_while_others_go_on():
    opened = session(rows=3)
    prefill(opened, [row(1), row(2), row(3)], "image")
    step(opened, np.array([1, 1, 1], np.int32))
    opened.truncate(1)
    step(opened, np.array([1, 1], np.int32))
    assert opened.lengths.tolist() == [3, 0, 3]
    assert prefill(opened, [row(4, 2)], "image", 1).argmax(-1).tolist() == [6]
    assert step(opened, np.array([0, 1, 0], np.int32)).argmax(-1).tolist() == [3, 7, 5]


def test_some_rows_step_and_others_wait():
    """Rows that a step passes over keep their tokens, also where they lie between those that it takes."""
    opened = session(rows=4)
    prefill(opened, [row(1), row(2), row(3), row(4)], "image")
    logits = opened.step(np.array([1, 2], np.int32), [3, 1])
    assert [found.argmax() for found in logits] == [5, 4]
    assert opened.lengths.tolist() == [1, 2, 1, 2]
    assert opened.language_model.calls[-1]["embeds"].shape[0] == 2, "one call"
    assert step(opened, np.zeros(4, np.int32)).argmax(-1).tolist() == [1, 4, 3, 5]


def test_text_and_picture_rows_share_a_call():
    """Each embeds and predicts by its own graphs; the decoder runs once."""
    opened = session(rows=3)
    opened.prefill([row(1), row(2)], [0, 2], "image")
    opened.prefill([row(3)], [1], "text")
    before = len(opened.language_model.calls)
    logits = opened.step(np.array([1, 4, 1], np.int32))
    assert [len(found) for found in logits] == [8, 13, 8]
    assert [found.argmax() for found in logits] == [2, 11, 3]
    assert len(opened.language_model.calls) == before + 1


def test_the_cache_is_the_same_memory_in_every_call():
    seen = set()
    engines = CountingModel()
    real = engines.language_model._answer

    def spy(inputs, outputs):
        assert inputs["past_key_0"] is outputs["present_key_0"]
        seen.add(inputs["past_key_0"].__array_interface__["data"][0])
        return real(inputs, outputs)

    engines.language_model._answer = spy
    opened = session(rows=2, engines=engines)
    prefill(opened, [row(1), row(2)], "image")
    seen.clear()
    for _ in range(3):
        step(opened, np.array([1, 1], np.int32))
    assert len(seen) == 1


def test_more_slots_keep_what_the_first_hold():
    opened = session(rows=9, max_length=12)
    for index in range(9):
        prefill(opened, [row(index, 1)], "image", index)
        assert step(opened, np.zeros(index + 1, np.int32)).argmax(-1).tolist() == [(each + 1) % 8 for each in range(index + 1)]


def test_slots_that_cannot_be_had_leave_the_others(monkeypatch):
    opened = session(rows=3)
    prefill(opened, [row(1, 2)], "image")
    with monkeypatch.context() as patch:
        patch.setattr("janus_runtime.decoding.host_session.HostMemory", lambda *given: (_ for _ in ()).throw(MemoryError("no room")))
        with pytest.raises(MemoryError):
            prefill(opened, [row(1), row(2)], "image", 1)
    assert opened.lengths.tolist() == [2, 0, 0]
    assert step(opened, np.array([1], np.int32)).argmax(-1).tolist() == [4]
    assert prefill(opened, [row(1)], "image", 1).argmax(-1).tolist() == [1]


def test_memory_is_that_of_tokens_and_is_given_back(janus):
    """A cache with room for a thousand rows of the model's longest takes what its rows hold, and `trim` gives back what they held."""
    with open_session(janus._engines, "text", 1000, janus.manifest.language_model.max_length) as opened:
        (prompt,) = embeddings(janus, 40)
        before = anonymous_bytes()
        opened.prefill([prompt] * 200, range(200), "text")
        held = anonymous_bytes() - before
        assert 200 * opened.row_bytes(40) <= held < 20 * 200 * opened.row_bytes(40) + 20e6, "pages are larger than heads of this model"
        for index in range(2, 200):
            opened.truncate(index)
        opened.trim()
        assert anonymous_bytes() - before < held / 2
        step(opened, np.array([8, 9], np.int32))


def anonymous_bytes():
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("private memory is read from /proc, which Linux has")
    return int(next(line for line in status.read_text().splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


def test_draw_feeds_each_pair_its_own_id():
    opened = session(rows=4)
    logits = prefill(opened, [row(1), row(2), row(3), row(4)], "image")
    drawn = draw(opened, logits, 3, GREEDY, [0, 0], Pairs(1.0))
    # Guidance 1 follows the conditional rows 0 and 2: 1, then 1+1, then 1+1+2; 3, then 3+3, …
    assert [ids.tolist() for ids in drawn] == [[1, 3], [2, 6], [4, 4]]
    fed = [call["ids"][:, 0].tolist() for call in opened._engines.embed["image"].calls]
    assert fed == [[1, 1, 3, 3], [2, 2, 6, 6]]


def test_draw_takes_no_step_that_nobody_asked_for():
    opened = session(rows=1)
    drawn = draw(opened, prefill(opened, [row(1)], "image"), 2, GREEDY, [0], Plain())
    next(drawn)
    assert opened.lengths.tolist() == [1]
    assert len(list(drawn)) == 1
    assert opened.lengths.tolist() == [2], "the last id is drawn and not fed back"


def test_rows_of_any_age_draw_together():
    """Text and pictures, each with its own settings and its own number of draws before: what each gives is what it gives alone."""

    def filled():
        opened = session(rows=4)
        pictures, text = prefill(opened, [row(1), row(2)], "image"), prefill(opened, [row(3)], "text", 2)
        return opened, [*pictures, *text]

    draws = [Draw(5, 0, Sampler(2.0), Pairs(1.5)), Draw(6, 9, Sampler(1.0, top_k=3), Plain())]
    opened, logits = filled()
    together = list(opened.draw(logits, [0, 1, 2], draws, 4))
    opened, logits = filled()
    alone = list(zip(opened.draw(logits[:2], [0, 1], draws[:1], 4), opened.draw(logits[2:], [2], draws[1:], 4), strict=True))
    assert together == [[*picture, *text] for picture, text in alone]


def test_a_draw_that_fails_ends_the_others_after_their_next_id():
    engines = CountingModel()
    opened = session(rows=3, engines=engines)
    logits = prefill(opened, [row(1), row(2), row(3)], "image")
    drawn = opened.draw(list(logits), [0, 1, 2], [Draw(0, 0, GREEDY, Plain())] * 3, 5)
    assert next(drawn) == [1, 2, 3]
    head = engines.head["image"]._answer

    def spoil(inputs, outputs):
        logits = head(inputs, outputs)["logits"]
        logits[1] = np.nan
        return {"logits": logits}

    engines.head["image"]._answer = spoil
    first, failed, last = next(drawn)
    assert (first, last) == (2, 6) and isinstance(failed, NumericalError)
    assert next(drawn, None) is None and opened.lengths.tolist() == [2, 1, 2]


@pytest.mark.parametrize("guilty", ["language_model", "image_head"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_or_inf_names_its_graph(guilty, value):
    engines = CountingModel()
    if guilty == "language_model":
        engines.language_model._answer = lambda inputs, outputs: {"hidden": np.full((1, 1), value, np.float32)}
        engines.head["image"]._answer = lambda inputs, outputs: {"logits": np.zeros((1, 8), np.float32)}
    else:
        engines.head["image"]._answer = lambda inputs, outputs: {"logits": np.full((1, 8), value, np.float32)}
    with pytest.raises(NumericalError, match=f"{guilty} gave NaN or Inf after .* tokens; .*janus-rt verify"):
        prefill(session(rows=1, engines=engines), [row(1)], "image")


def test_a_step_that_fails_can_be_tried_again():
    engines = CountingModel()
    head = engines.head["image"]._answer
    opened = session(rows=1, engines=engines)
    prefill(opened, [row(1)], "image")
    engines.head["image"]._answer = lambda inputs, outputs: {"logits": np.full((1, 8), np.nan, np.float32)}
    for _ in range(2):
        with pytest.raises(NumericalError):
            step(opened, np.array([2], np.int32))
        assert opened.lengths.tolist() == [1]
    engines.head["image"]._answer = head
    assert step(opened, np.array([2], np.int32)).argmax(-1).tolist() == [3]


def test_nan_is_the_error_of_its_row_and_the_others_go_on():
    engines = CountingModel()
    head = engines.head["image"]._answer

    def spoil(inputs, outputs):
        logits = head(inputs, outputs)["logits"]
        logits[1, 3] = np.nan
        return {"logits": logits}

    opened = session(rows=3, engines=engines)
    prefill(opened, [row(1), row(2), row(3)], "image")
    engines.head["image"]._answer = spoil
    first, second, third = opened.step(np.array([1, 1, 1], np.int32))
    assert (first.argmax(), third.argmax()) == (2, 4) and isinstance(second, NumericalError)
    assert opened.lengths.tolist() == [2, 1, 2]
    engines.head["image"]._answer = head
    assert step(opened, np.array([0, 1, 0], np.int32)).argmax(-1).tolist() == [2, 3, 4]


@pytest.fixture(scope="module", params=["fp32", pytest.param("int4", marks=needs_int8_cache)])
def janus(bundles, request):
    with janus_runtime.load(bundles("tiny", request.param), backend="cpu") as opened:
        yield opened


@pytest.fixture
def real(janus):
    return lambda rows: open_session(janus._engines, "text", rows, 40)


def close(janus, got, expected):
    """Integer activations round a difference of the last bit to a step, which the layers after carry on."""
    return relative_difference(got, expected) <= (FP32 if janus.manifest.precision == "fp32" else INT8_CACHE)


def embeddings(janus, *lengths):
    rng = np.random.default_rng(0)
    return [janus._engines.embed_text(rng.integers(6, 300, length).astype(np.int32)) for length in lengths]


def test_real_prefill_in_two_parts_equals_one(janus, real):
    (whole,) = embeddings(janus, 12)
    expected = prefill(real(1), [whole], "text")
    parts = real(1)
    prefill(parts, [whole[:7]], "text")
    assert close(janus, prefill(parts, [whole[7:]], "text"), expected)


def test_a_real_step_writes_one_place_a_row_and_nothing_else(janus, real):
    """The engine writes into our memory: nothing is copied, nothing grows."""
    opened = real(2)
    prefill(opened, embeddings(janus, 9, 4), "text")
    before = [tensor.copy() for tensor in opened._cache]
    lengths = opened.lengths.copy()
    step(opened, np.array([8, 9], np.int32))
    for index, tensor in enumerate(opened._cache):
        changed = (tensor != before[index]).any(axis=(1, 3))
        assert [np.flatnonzero(row).tolist() for row in changed] == [[length] for length in lengths], index


def test_real_rubbish_beyond_a_rows_length_changes_nothing(janus, real):
    clean, dirty = real(2), real(2)
    for opened in (clean, dirty):
        prefill(opened, embeddings(janus, 9, 4), "text")
    for tensor in dirty._cache:
        for row, length in enumerate(dirty.lengths):
            tensor[row, :, length:] = 100
    ids = np.array([8, 9], np.int32)
    assert np.array_equal(step(clean, ids), step(dirty, ids))


def test_real_rows_do_not_see_each_other(janus, real):
    rows = embeddings(janus, 9, 4, 6)
    together = real(3)
    batch = [prefill(together, rows, "text"), step(together, np.array([8, 9, 10], np.int32))]
    for index, one in enumerate(rows):
        alone = real(1)
        single = [prefill(alone, [one], "text"), step(alone, np.array([8 + index], np.int32))]
        for a, b in zip(batch, single, strict=True):
            assert close(janus, a[index], b[0])


def test_real_refill_while_others_go_on(janus, real):
    first, second, late = embeddings(janus, 5, 8, 7)
    shared = real(2)
    prefill(shared, [first, second], "text")
    step(shared, np.array([8, 9], np.int32))
    shared.truncate(1)
    step(shared, np.array([10], np.int32))
    prefill(shared, [late], "text", 1)
    got = step(shared, np.array([11, 12], np.int32))
    alone = real(1)
    prefill(alone, [late], "text")
    expected = step(alone, np.array([12], np.int32))
    assert close(janus, got[1], expected[0])
    old = real(1)
    prefill(old, [first], "text")
    for token in (8, 10):
        step(old, np.array([token], np.int32))
    expected = step(old, np.array([11], np.int32))
    assert close(janus, got[0], expected[0])
