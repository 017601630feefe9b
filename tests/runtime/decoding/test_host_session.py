"""Slots, lengths and the loop, first on a scripted model, then on a real one."""

import numpy as np
import pytest

import janus_runtime
from janus_runtime.bundle.manifest import LanguageModel
from janus_runtime.checks.tolerances import FP32, INT8_CACHE
from janus_runtime.checks.verify import relative_difference
from janus_runtime.decoding.host_session import Session
from janus_runtime.errors import NumericalError
from janus_runtime.sampling.sampler import Sampler
from testing.fakes import counting_model
from tests.marks import needs_int8_cache

SIZES = LanguageModel(1, 1, 1, 1, 8, 64)
GREEDY = Sampler(temperature=0)


def session(rows=4, max_length=20, engines=None, grows=False):
    engines = engines or counting_model()
    return Session(engines["language_model"], engines["embed"], engines["head"], SIZES, rows, max_length, grows)


def row(*ids):
    return np.array(ids, np.float32)[:, None]


def test_a_ragged_prefill_ends_at_each_rows_own_length():
    opened = session()
    logits = opened.prefill([row(1, 2, 3), row(5)])
    assert logits.argmax(-1).tolist() == [6, 5]
    assert opened.lengths.tolist() == [3, 1, 0, 0]
    assert opened.language_model.calls[0]["last_row"].tolist() == [2, 3]
    assert opened.language_model.calls[0]["total_sequence_length"] == 3


def test_steps_follow_each_rows_length():
    opened = session(rows=2)
    opened.prefill([row(1, 2, 3), row(5)])
    assert opened.step(np.array([1, 2], np.int32)).argmax(-1).tolist() == [7, 7]
    assert opened.lengths.tolist() == [4, 2]
    assert opened.step(np.array([0, 1], np.int32)).argmax(-1).tolist() == [7, 0]


def test_one_row_continues_where_it_stopped():
    opened = session(rows=1)
    opened.prefill([row(1, 2)])
    assert opened.prefill([row(3, 4)]).argmax(-1).tolist() == [10 % 8]
    assert opened.lengths.tolist() == [4]


@pytest.mark.parametrize("length", [5, 6, 10, 12])
@pytest.mark.parametrize("before", [0, 3])
def test_a_lone_prompt_in_pieces_is_the_whole(monkeypatch, length, before):
    monkeypatch.setattr("janus_runtime.decoding.host_session._PIECE", 5)
    opened = session(rows=2, engines=counting_model(cache="int8"))
    if before:
        opened.prefill([row(*range(before))], slot=1)
    first = len(opened.language_model.calls)
    logits = opened.prefill([row(*range(length))], slot=1)
    assert logits.argmax(-1).tolist() == [(sum(range(before)) + sum(range(length))) % 8]
    assert opened.lengths.tolist() == [0, before + length]
    sizes = [call["embeds"].shape[1] for call in opened.language_model.calls[first:]]
    assert sizes == [5] * (length // 5) + [length % 5] * (length % 5 > 0)


def test_a_piece_that_fails_undoes_the_ones_before(monkeypatch):
    monkeypatch.setattr("janus_runtime.decoding.host_session._PIECE", 5)
    engines = counting_model(cache="int8")
    opened = session(rows=1, engines=engines)
    opened.prefill([row(1, 2)])
    real = engines["language_model"]._answer

    def fail_later(inputs, outputs):
        if inputs["seqlens_k"][0] > 8:
            raise OSError("gone")
        return real(inputs, outputs)

    engines["language_model"]._answer = fail_later
    with pytest.raises(OSError, match="gone"):
        opened.prefill([row(*range(12))])
    assert opened.lengths.tolist() == [2]
    engines["language_model"]._answer = real
    assert opened.prefill([row(3, 4)]).argmax(-1).tolist() == [10 % 8]


def test_replicate_copies_cache_and_length():
    opened = session()
    opened.prefill([row(1, 2, 3), row(5)])
    opened.replicate(0, 3)
    assert opened.lengths.tolist() == [3, 1, 0, 3]
    assert opened.step(np.array([1, 1, 0, 1], np.int32)).argmax(-1)[[0, 3]].tolist() == [7, 7]


def test_a_slot_is_freed_and_refilled_while_others_go_on():
    opened = session(rows=3)
    opened.prefill([row(1), row(2), row(3)])
    opened.step(np.array([1, 1, 1], np.int32))
    opened.truncate(1)
    opened.step(np.array([1, 7, 1], np.int32))
    assert opened.lengths.tolist() == [3, 0, 3]
    assert opened.prefill([row(4, 2)], slot=1).argmax(-1).tolist() == [6]
    assert opened.step(np.array([0, 1, 0], np.int32)).argmax(-1).tolist() == [3, 7, 5]


def test_the_cache_is_the_same_memory_in_every_call():
    seen = set()
    engines = counting_model()
    real = engines["language_model"]._answer

    def spy(inputs, outputs):
        assert inputs["past_key_0"] is outputs["present_key_0"]
        seen.add(inputs["past_key_0"].__array_interface__["data"][0])
        return real(inputs, outputs)

    engines["language_model"]._answer = spy
    opened = session(rows=2, engines=engines)
    opened.prefill([row(1), row(2)])
    for _ in range(3):
        opened.step(np.array([1, 1], np.int32))
    assert len(seen) == 1


def test_a_cache_that_grows_keeps_what_it_holds():
    opened = session(rows=2, max_length=12, grows=True)
    assert opened.capacity == 0
    opened.prefill([row(1, 2), row(3)])
    assert opened.capacity == 3
    for count, capacity in ((3, 3), (4, 6), (5, 6), (6, 6), (7, 10), (8, 10), (9, 10), (10, 10), (11, 12), (12, 12)):
        logits = opened.step(np.array([1, 1], np.int32))
        assert opened.lengths.tolist() == [count, count - 1] and opened.capacity == capacity
        assert logits.argmax(-1).tolist() == [(count + 1) % 8, (count + 1) % 8]
    assert session(max_length=12).capacity == 12


def test_a_cache_that_cannot_grow_stays_as_it_was(monkeypatch):
    opened = session(rows=1, grows=True)
    opened.prefill([row(1, 2)])
    with monkeypatch.context() as patch:
        patch.setattr("janus_runtime.decoding.host_session.np.zeros", lambda *shape: (_ for _ in ()).throw(MemoryError("no room")))
        opened.step(np.array([1], np.int32))
        with pytest.raises(MemoryError):
            opened.step(np.array([1], np.int32))
    assert opened.lengths.tolist() == [3]
    assert opened.step(np.array([1], np.int32)).argmax(-1).tolist() == [5]


def test_draw_feeds_each_pair_its_own_id():
    opened = session(rows=4)
    logits = opened.prefill([row(1), row(2), row(3), row(4)])
    drawn = opened.draw(logits, 3, GREEDY, noise=None, cfg_weight=1.0)
    # Guidance 1 follows the conditional rows 0 and 2: 1, then 1+1, then 1+1+2; 3, then 3+3, …
    assert [ids.tolist() for ids in drawn] == [[1, 3], [2, 6], [4, 4]]
    fed = [call["ids"][:, 0].tolist() for call in opened.embed.calls]
    assert fed == [[1, 1, 3, 3], [2, 2, 6, 6]]


def test_draw_takes_no_step_that_nobody_asked_for():
    opened = session(rows=1)
    drawn = opened.draw(opened.prefill([row(1)]), 2, GREEDY, noise=None)
    next(drawn)
    assert opened.lengths.tolist() == [1]
    assert len(list(drawn)) == 1
    assert opened.lengths.tolist() == [2], "the last id is drawn and not fed back"


def test_noise_is_asked_for_by_step():
    opened, steps = session(rows=1), []

    def noise(step):
        steps.append(step)
        return np.zeros((1, 8), np.float32)

    drawn = opened.draw(opened.prefill([row(1)]), 3, Sampler(), noise)
    assert len(list(drawn)) == 3
    assert steps == [0, 1, 2]


@pytest.mark.parametrize("guilty", ["language_model", "head"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_or_inf_names_its_graph(guilty, value):
    engines = counting_model()
    engines[guilty]._answer = lambda inputs, outputs: (
        {"hidden": np.full((1, 1), value, np.float32)} if guilty == "language_model" else {"logits": np.full((1, 8), value, np.float32)}
    )
    if guilty == "language_model":
        engines["head"]._answer = lambda inputs, outputs: {"logits": np.zeros((1, 8), np.float32)}
    with pytest.raises(NumericalError, match=f"{guilty} gave NaN or Inf after 0 tokens; .*janus-rt verify"):
        session(rows=1, engines=engines).prefill([row(1)])


def test_a_step_that_fails_can_be_tried_again():
    engines = counting_model()
    head = engines["head"]._answer
    opened = session(rows=1, engines=engines)
    opened.prefill([row(1)])
    engines["head"]._answer = lambda inputs, outputs: {"logits": np.full((1, 8), np.nan, np.float32)}
    for _ in range(2):
        with pytest.raises(NumericalError):
            opened.step(np.array([2], np.int32))
        assert opened.lengths.tolist() == [1]
    engines["head"]._answer = head
    assert opened.step(np.array([2], np.int32)).argmax(-1).tolist() == [3]


def test_rubbish_in_a_free_row_is_nobodys_error():
    engines = counting_model()
    head = engines["head"]._answer

    def rubbish(inputs, outputs):
        logits = head(inputs, outputs)["logits"]
        logits[1:] = np.nan
        return {"logits": logits}

    opened = session(rows=2, engines=engines)
    opened.prefill([row(1)])
    engines["head"]._answer = rubbish
    assert np.isfinite(opened.step(np.array([1, 0], np.int32))[0]).all()


@pytest.fixture(scope="module", params=["fp32", pytest.param("int4", marks=needs_int8_cache)])
def janus(bundles, request):
    with janus_runtime.load(bundles("tiny", request.param), backend="cpu") as opened:
        yield opened


@pytest.fixture
def real(janus):
    return lambda rows: janus._engines.session("text", rows, 40)


def close(janus, got, expected):
    """Integer activations round a difference of the last bit to a step, which the layers after carry on."""
    return relative_difference(got, expected) <= (FP32 if janus.manifest.precision == "fp32" else INT8_CACHE)


def embeddings(janus, *lengths):
    rng = np.random.default_rng(0)
    return [janus._engines.embed_text(rng.integers(6, 300, length).astype(np.int32)) for length in lengths]


def test_real_prefill_in_two_parts_equals_one(janus, real):
    (whole,) = embeddings(janus, 12)
    expected = real(1).prefill([whole])
    parts = real(1)
    parts.prefill([whole[:7]])
    assert close(janus, parts.prefill([whole[7:]]), expected)


def test_a_real_step_writes_one_place_a_row_and_nothing_else(janus, real):
    """The engine writes into our memory: nothing is copied, nothing grows."""
    opened = real(2)
    opened.prefill(embeddings(janus, 9, 4))
    before = {name: tensor.copy() for name, tensor in opened._cache.items()}
    lengths = opened.lengths.copy()
    opened.step(np.array([8, 9], np.int32))
    for name, tensor in opened._cache.items():
        changed = (tensor != before[name]).any(axis=(1, 3))
        assert [np.flatnonzero(row).tolist() for row in changed] == [[length] for length in lengths], name


def test_real_rubbish_beyond_a_rows_length_changes_nothing(janus, real):
    clean, dirty = real(2), real(2)
    for opened in (clean, dirty):
        opened.prefill(embeddings(janus, 9, 4))
    for tensor in dirty._cache.values():
        for row, length in enumerate(dirty.lengths):
            tensor[row, :, length:] = 100
    ids = np.array([8, 9], np.int32)
    assert np.array_equal(clean.step(ids), dirty.step(ids))


def test_real_rows_do_not_see_each_other(janus, real):
    rows = embeddings(janus, 9, 4, 6)
    together = real(3)
    batch = [together.prefill(rows), together.step(np.array([8, 9, 10], np.int32))]
    for index, one in enumerate(rows):
        alone = real(1)
        single = [alone.prefill([one]), alone.step(np.array([8 + index], np.int32))]
        for a, b in zip(batch, single, strict=True):
            assert close(janus, a[index], b[0])


def test_real_refill_while_others_go_on(janus, real):
    first, second, late = embeddings(janus, 5, 8, 7)
    shared = real(2)
    shared.prefill([first, second])
    shared.step(np.array([8, 9], np.int32))
    shared.truncate(1)
    shared.step(np.array([10, 0], np.int32))
    shared.prefill([late], slot=1)
    got = shared.step(np.array([11, 12], np.int32))
    alone = real(1)
    alone.prefill([late])
    expected = alone.step(np.array([12], np.int32))
    assert close(janus, got[1], expected[0])
    old = real(1)
    old.prefill([first])
    for token in (8, 10):
        old.step(np.array([token], np.int32))
    expected = old.step(np.array([11], np.int32))
    assert close(janus, got[0], expected[0])
