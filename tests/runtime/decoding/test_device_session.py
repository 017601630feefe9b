"""The loop on a device, on a stand-in of one: the ids of the CPU path, exactly, and nothing waited for."""

import threading

import numpy as np
import pytest
from PIL import Image

from janus_runtime.bundle.bundle import Bundle
from janus_runtime.checks.tolerances import FP32
from janus_runtime.checks.verify import relative_difference
from janus_runtime.decoding import capture, device_session
from janus_runtime.decoding.sessions import open_session
from janus_runtime.errors import BackendError, Cancelled, NumericalError, OutOfMemory, PromptError
from janus_runtime.janus import janus_over
from janus_runtime.sampling.guidance import Pairs
from janus_runtime.sampling.sampler import Sampler
from testing.sessions import draw, prefill, step, wait_until_idle
from testing.stand_in import StandIn
from tests.marks import needs_opset_24

FLAVOURS = pytest.mark.parametrize("flavour", ["slice", pytest.param("inplace", marks=needs_opset_24), "gqa"])
RED = Image.new("RGB", (48, 48), "red")
PROMPTS = ["a red circle", "two small green crosses on black"]


def opened(path, **options):
    return janus_over(Bundle.open(path), StandIn(**options))


def limits(flavour):
    """A plan of `inplace` has one length."""
    return {"flavour": flavour, **({"lengths": (480,)} if flavour == "inplace" else {})}


@pytest.fixture(scope="module")
def device(tiny):
    """`device(flavour)` -> a Janus on the stand-in, opened once."""
    made = {}

    def get(flavour):
        if flavour not in made:
            made[flavour] = opened(tiny, **limits(flavour))
        return made[flavour]

    yield get
    for janus in made.values():
        janus.close()


def pictures(janus, *arguments, **settings):
    return [picture.image_ids.tolist() for picture in janus.generate(*arguments, **settings)]


def test_a_picture_to_draw_from_is_refused_before_any_work(device):
    """Not as a prompt that is too long for the plans at hand, which no others would mend."""
    for settings in ({}, {"n": 40}):
        with pytest.raises(
            BackendError, match="needs 3 rows a picture and the stand-in backend draws with 2; load the bundle with backend=cpu"
        ):
            device("slice").generate("a red circle " * 400, image=RED, **settings)


@FLAVOURS
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0},
        {"temperature": 0.7, "cfg_weight": 2.5},
        {"top_k": 7},
        {"top_p": 0.6},
        {"top_k": 30, "top_p": 0.9, "cfg_weight": 1},
    ],
    ids=str,
)
def test_pictures_are_the_cpus(janus, device, flavour, settings):
    """Two prompts of different lengths, three pictures each, in batches of four: idle rows, copies, growth of the cache."""
    settings = {"n": 3, "seed": 11, "batch_size": 4, **settings}
    assert pictures(device(flavour), PROMPTS, **settings) == pictures(janus, PROMPTS, **settings)


@FLAVOURS
@pytest.mark.parametrize("sampler", [Sampler(0), Sampler(0.8, top_k=20)], ids=str)
def test_answers_are_the_cpus(janus, device, flavour, sampler):
    """Turns that continue a cache in which the device has gone further than the answer went."""
    said = []
    for each in (janus, device(flavour)):
        chat = each.chat(max_length=450)
        first = chat.say("What is this?", [RED], max_tokens=9, sampler=sampler, seed=3)
        texts = ["".join(piece for piece, _ in zip(first, range(4), strict=False)), first.text_ids[:]]
        second = chat.say("And this?", max_tokens=6, sampler=sampler, seed=4)
        texts += ["".join(second), second.text_ids, second.stop, chat.length]
        said.append(texts)
    assert said[0] == said[1]


@FLAVOURS
def test_logits_of_every_step(janus, device, flavour):
    """Teacher-forced: rows of their own lengths, a long prompt in pieces, a row that continues, a copy, a cut."""
    rng = np.random.default_rng(0)
    width = janus.manifest.language_model.hidden_size
    rows = [rng.standard_normal((length, width), np.float32) for length in (21, 3)]
    late = rng.standard_normal((40, width), np.float32)
    results = []
    for each in (janus, device(flavour)):
        session = open_session(each._engines, "image", rows=4, max_length=120)
        logits = [prefill(session, rows, "image"), prefill(session, [late], "image", 2), prefill(session, [late[:5]], "image", 2)]
        session.copy(0, 3)
        logits += [step(session, np.array([number, 5, 6, number], np.int32)) for number in range(4)]
        assert np.array_equal(logits[-1][0], logits[-1][3]), "a copy goes the same way"
        session.truncate(2, 30)
        logits += [step(session, np.array([1, 2, 3, 4], np.int32))]
        results.append((logits, session.lengths.tolist()))
    assert results[0][1] == results[1][1]
    for index, (expected, got) in enumerate(zip(results[0][0], results[1][0], strict=True)):
        assert relative_difference(got, expected) <= FP32, f"call {index}"


def test_int4_weights_beside_an_fp16_cache(bundles):
    """What the CUDA backend runs of an int4 bundle: its own flavour, of the same codes, in fp16."""
    with opened(bundles("tiny", "int4"), flavour="gqa_cuda") as janus:
        checks = {check.graph: check for check in janus.verify_goldens()}
        assert checks["language_model.gqa_cuda"].passed and "language_model.gqa" not in checks
        assert len(janus.generate("a red circle")) == 1
        spec = janus._engines.language_model.spec
        assert (spec.inputs["embeds"].dtype, spec.cache.dtype) == ("float32", "float16")


def session_of(janus, rows=2, length=40):
    session = open_session(janus._engines, "image", rows, length)
    width = janus.manifest.language_model.hidden_size
    return session, prefill(session, [np.ones((4, width), np.float32)] * rows, "image")


def test_steps_are_replays(tiny):
    """After the first step of each cache length the host queues one thing a step and downloads nothing."""
    with opened(tiny, lengths=(16, 160)) as janus:
        session, logits = session_of(janus, length=150)
        device = janus._engines.backend.device
        device.launched.clear()
        downloads = []
        real = device.download
        device.download = lambda array: downloads.append(array) or real(array)
        drawn = list(draw(session, logits, 30, Sampler(), [1], Pairs(5.0)))
        assert len(drawn) == 30 and not downloads
        # 29 steps and a last draw; of the steps, one each over 16 and 160 places was done rather than replayed.
        assert device.launched["replay"] == 27
        assert device.launched["draw"] == device.launched["record"] == 30
        assert device.launched["copy_2d"] == 1, "the cache grew once"


@pytest.mark.parametrize("chunk", [16, 24, 480])
def test_the_decoder_sees_what_image_embed_gives_of_each_id(tiny, chunk):
    """All ids are embedded once, by calls of `chunk` ids or fewer."""
    with opened(tiny, lengths=(160,), chunk=chunk) as janus:
        session, logits = session_of(janus, length=150)
        device, graphs = janus._engines.backend.device, janus._engines.backend.graphs
        embedded = graphs["image_embed"].run({"image_ids": np.arange(logits.shape[1], dtype=np.int32)[None]})["embeds"][0]
        calls = graphs["image_embed"].calls
        (*_, last) = draw(session, logits, 9, Sampler(), [1], Pairs(5.0))
        with device.lock:
            table, embeds = device.download(session._loop._table), device.download(session._loop.embeds)
        assert relative_difference(table, embedded) <= FP32
        assert np.array_equal(embeds[:, 0], table[[last[0], last[0]]])
        other, _ = session_of(janus, rows=4)
        assert other._loop._table is session._loop._table and graphs["image_embed"].calls == calls
        assert open_session(janus._engines, "text", 1, 40)._loop._table is None
        assert "image_draw" not in graphs


def test_the_table_of_embeddings_goes_with_the_model(tiny):
    janus = opened(tiny)
    session, _ = session_of(janus)
    loops = janus._engines._loops
    session.close()
    with janus._engines.backend.device.lock:
        loops.free()
    assert loops._table is not None
    janus.close()
    assert loops._table is None and session._loop._table is None


def test_a_second_draw_uses_the_memory_and_the_replays_of_the_first(tiny):
    with opened(tiny) as janus:
        first = pictures(janus, "a red circle", seed=5)
        device = janus._engines.backend.device
        allocated = []
        real = device.empty
        device.empty = lambda shape, dtype: allocated.append(int(np.prod(shape))) or real(shape, dtype)
        device.launched.clear()
        assert pictures(janus, "a red circle", seed=5) == first
        assert device.launched["replay"] == janus.manifest.image_output.num_tokens - 1
        (loop,) = janus._engines._loops._all
        assert max(allocated) < loop._memory[0].size, "a cache was allocated again"


def test_few_steps_are_ahead(tiny):
    """What is queued when a draw is dropped is soon over, and the next draw is not disturbed."""
    with opened(tiny) as janus:
        session, logits = session_of(janus, length=150)
        whole = [ids.tolist() for ids in draw(session, logits, 20, Sampler(), [3], Pairs(5.0))]
        session.truncate(0, 4), session.truncate(1, 4)
        drawn = draw(session, logits, 20, Sampler(), [3], Pairs(5.0))
        assert [next(drawn).tolist() for _ in range(3)] == whole[:3]
        drawn.close()
        assert session.lengths.tolist() == [6, 6]
        session.truncate(0, 4), session.truncate(1, 4)
        assert [ids.tolist() for ids in draw(session, logits, 20, Sampler(), [3], Pairs(5.0))] == whole


@pytest.mark.parametrize("milliseconds, ahead", [(1, 50), (10, 5), (200, 2)])
def test_the_host_is_fifty_milliseconds_ahead(tiny, monkeypatch, milliseconds, ahead):
    with opened(tiny, lengths=(160,)) as janus:
        session, logits = session_of(janus, length=150)
        clock = iter(range(10**6))
        # Read once before the draw and once a step.
        monkeypatch.setattr(device_session.time, "perf_counter", lambda: next(clock) * milliseconds / 1e3)
        queued = []
        real = session._queue
        session._queue = lambda start, busy, steps, limit: queued.extend(steps) or real(start, busy, steps, limit)
        drawn = draw(session, logits, 140, Sampler(), [3], Pairs(5.0))
        for step in range(1, 6):
            next(drawn)
            assert len(queued) <= step + ahead
            assert len(queued) >= step + 1
        # Never less than half, so that many are queued at a time.
        assert len(queued) >= 5 + ahead // 2 - 2 and queued == list(range(len(queued)))


def test_cancel(tiny):
    with opened(tiny) as janus:
        event = threading.Event()
        with pytest.raises(Cancelled, match="cancelled after 3 of"):
            janus.generate("x", on_step=lambda step, total: step == 3 and event.set(), cancel=event)
        assert pictures(janus, "a red circle", seed=5) == pictures(janus, "a red circle", seed=5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_or_inf_ends_the_draw(tiny, value):
    with opened(tiny) as janus:
        expected = pictures(janus, "x")
        head = janus._engines.backend.graphs["image_head"]

        def spoil(tensors):
            if head.calls == limit:
                tensors["logits"][1, 5] = value

        limit = head.calls + 10
        head.after = spoil
        with pytest.raises(NumericalError, match="image_head gave NaN or Inf after .* tokens; .*janus-rt verify"):
            janus.generate("x")
        head.after = lambda tensors: None
        assert pictures(janus, "x") == expected


def spoil_from_call(decoder, number):
    """The decoder gives hidden states, keys and values of NaN from this call on, counted from now."""
    first = decoder.calls + number

    def spoil(tensors):
        if decoder.calls >= first:
            for name, tensor in tensors.items():
                if name.startswith(("new_key", "new_value", "hidden")):
                    tensor[...] = np.nan

    decoder.after = spoil


def test_keys_of_nan_stay_in_no_cache_of_a_loop(tiny, monkeypatch):
    """The device is ahead, and by the time that NaN is seen it has moved on to a longer cache; the next draw begins in the shorter one."""
    monkeypatch.setattr(device_session, "_AHEAD_STEPS", (40, 200))
    with opened(tiny, lengths=(24, 160)) as janus:
        expected = pictures(janus, "a red circle", seed=5)
        decoder = janus._engines.backend.graphs["language_model.slice"]
        spoil_from_call(decoder, 3)
        with pytest.raises(NumericalError):
            janus.generate("a red circle", seed=5)
        decoder.after = lambda tensors: None
        assert pictures(janus, "a red circle", seed=5) == expected


def test_keys_of_nan_spoil_nothing_later(tiny):
    """Not the same conversation, and not the next session over the same memory."""
    with opened(tiny, lengths=(160,)) as janus:
        session, logits = session_of(janus, length=150)
        whole = [ids.tolist() for ids in draw(session, logits, 9, Sampler(), [3], Pairs(5.0))]
        decoder = janus._engines.backend.graphs["language_model.slice"]
        session.truncate(0, 4), session.truncate(1, 4)
        spoil_from_call(decoder, 4)
        with pytest.raises(NumericalError):
            list(draw(session, logits, 9, Sampler(), [3], Pairs(5.0)))
        decoder.after = lambda tensors: None
        session.truncate(0, 4), session.truncate(1, 4)
        assert [ids.tolist() for ids in draw(session, logits, 9, Sampler(), [3], Pairs(5.0))] == whole


def test_steps_that_nobody_asked_for_may_be_bad(tiny):
    """The device is ahead; an answer that ends before them is whole."""
    with opened(tiny, lengths=(160,)) as janus:
        session, logits = session_of(janus, length=150)
        whole = [ids.tolist() for ids in draw(session, logits, 9, Sampler(), [3], Pairs(5.0))]
        session.truncate(0, 4), session.truncate(1, 4)
        drawn = draw(session, logits, 9, Sampler(), [3], Pairs(5.0))
        got = [next(drawn).tolist()]
        session._loop.bad[0] = 4  # the fourth draw
        got += [next(drawn).tolist() for _ in range(2)]
        assert got == whole[:3]
        with pytest.raises(NumericalError):
            next(drawn)


def test_nothing_runs_on_a_closed_model(tiny):
    janus = opened(tiny)
    session, logits = session_of(janus, length=150)
    drawn = draw(session, logits, 50, Sampler(), [3], Pairs(5.0))
    next(drawn)
    janus.close()
    calls = janus._engines.backend.graphs["language_model.slice"].calls
    with pytest.raises(BackendError, match="this model is closed; load it again"):
        list(drawn)
    assert janus._engines.backend.graphs["language_model.slice"].calls == calls


@pytest.mark.parametrize(
    "use",
    [
        lambda session, logits: session.prefill([np.ones((4, 64), np.float32)], [0], "image"),
        lambda session, logits: session.fill([np.ones((1, 64), np.float32)], [0]),
        lambda session, logits: session.copy(0, 1),
        lambda session, logits: next(draw(session, logits, 5, Sampler(), [1], Pairs(5.0))),
        lambda session, logits: session._loop.step(32),
        lambda session, logits: session._loop.draw(),
    ],
    ids=["prefill", "fill", "copy", "draw", "a step of the loop", "a draw of the loop"],
)
def test_a_session_of_a_closed_model_says_so(tiny, use):
    janus = opened(tiny)
    session, logits = session_of(janus)
    janus.close()
    with janus._engines.backend.device.lock, pytest.raises(BackendError, match="^this model is closed; load it again$"):
        use(session, logits)


def test_work_that_failed_is_closed_all_the_same(tiny):
    janus = opened(tiny)
    session, _ = session_of(janus)

    def fail():
        raise BackendError("the GPU failed")

    with janus._engines.backend.device.lock:
        janus._engines.backend.device.queue(fail)
    with pytest.raises(BackendError, match="the GPU failed"):
        janus.close()
    assert all(memory is None for memory in session._loop._memory) and not janus._engines._open


def test_what_idle_rows_compute_does_not_matter(tiny):
    """Three rows' worth of pictures in a loop of eight: the logits of idle rows may be anything, NaN too."""
    with opened(tiny, rows=(8,)) as janus:
        expected = pictures(janus, "a red circle", seed=5)
        head = janus._engines.backend.graphs["image_head"]
        head.after = lambda tensors: tensors["logits"][2:].fill(np.nan)
        assert pictures(janus, "a red circle", seed=5) == expected


def test_more_rows_than_were_built(tiny):
    with opened(tiny, rows=(2,)) as janus:
        with pytest.raises(BackendError, match=r"4 rows at once were asked for, the plans hold 2; .*batch_size.*--rows 4"):
            janus.generate("x", n=2, batch_size=2)
        assert len(janus.generate("x", n=2)) == 2


def test_a_prompt_longer_than_was_built(tiny):
    with opened(tiny, lengths=(32, 48)) as janus, pytest.raises(PromptError, match=r"holds 48 together; .*--lengths \d+"):
        janus.generate("x" * 200)


def test_a_conversation_is_as_long_as_was_built(tiny):
    with opened(tiny, lengths=(32, 48)) as janus:
        chat = janus.chat()
        assert chat.max_length == 48
        with pytest.raises(PromptError, match="the limit is 48 .*; build longer plans with 'janus-export engines DIR --lengths"):
            chat.say("x" * 200)


def test_out_of_memory_frees_what_is_idle(tiny):
    with opened(tiny) as janus:
        janus.generate("x")
        wait_until_idle(janus)
        device, loops = janus._engines.backend.device, janus._engines._loops
        assert len(loops._idle) == 1
        real = device.allocate

        def allocate(shape, dtype):
            if loops._idle or fail:
                raise OutOfMemory("8 GB were asked for, 1 GB is free")
            return real(shape, dtype)

        device.allocate, fail = allocate, False
        session_of(janus, rows=4)
        device.allocate = real
        janus.generate("x", n=4)
        device.allocate, fail = allocate, True
        with pytest.raises(OutOfMemory, match="8 GB"):
            open_session(janus._engines, "image", 8, 40)
        device.allocate = real
        assert len(janus.generate("x")) == 1


def test_a_cache_that_is_made_late_frees_what_is_idle(tiny):
    """The caches of a loop are most of its memory, and are made after it."""
    with opened(tiny) as janus:
        session = open_session(janus._engines, "image", 4, 40)
        janus.generate("x")
        device, loops = janus._engines.backend.device, janus._engines._loops
        real = device.allocate

        def allocate(shape, dtype):
            if loops._idle and np.prod(shape) > 10_000:
                raise OutOfMemory("8 GB were asked for, 1 GB is free")
            return real(shape, dtype)

        device.allocate = allocate
        width = janus.manifest.language_model.hidden_size
        prefill(session, [np.ones((4, width), np.float32)] * 4, "image")
        assert not loops._idle


def test_a_half_of_the_caches_is_made_once_for_a_picture(tiny):
    """One that grows loses its replays, and the second picture would be captured again."""
    with opened(tiny, lengths=(16, 24, 40, 160)) as janus:
        first = pictures(janus, "a red circle", seed=5)
        device = janus._engines.backend.device
        device.launched.clear()
        assert pictures(janus, "a red circle", seed=5) == first
        assert device.launched["replay"] == janus.manifest.image_output.num_tokens - 1


def test_a_step_that_cannot_be_captured(tiny, monkeypatch, caplog):
    def refuse(work):
        raise BackendError("the GPU failed (CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); more")

    monkeypatch.setattr(capture, "_refused", set())
    with opened(tiny) as janus:
        expected = pictures(janus, PROMPTS, seed=5)
    with opened(tiny) as janus:
        janus._engines.backend.device.capture = refuse
        assert pictures(janus, PROMPTS, seed=5) == expected == pictures(janus, PROMPTS, seed=5)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("the stand-in could not be captured as a graph of the GPU, so steps")
    monkeypatch.setenv("JANUS_CAPTURE", "0")
    with opened(tiny) as janus:
        janus._engines.backend.device.capture = lambda work: pytest.fail("captured")
        assert pictures(janus, PROMPTS, seed=5) == expected


@pytest.mark.parametrize("rows", [(2,), (1, 8)], ids=str)
def test_verify_runs_every_graph(tiny, rows):
    with opened(tiny, rows=rows) as janus:
        checks = list(janus.verify_goldens())
    others = ("language_model.gqa", "language_model.inplace", "image_preview")
    graphs = [name for name in Bundle.open(tiny).manifest.graphs if name not in others]
    assert [check.graph for check in checks] == graphs
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]


def test_two_threads_take_turns(tiny):
    with opened(tiny) as janus:
        seeds = range(4)
        alone = [pictures(janus, "a red circle", seed=seed) for seed in seeds]
        together = [None] * len(seeds)

        def run(seed):
            together[seed] = pictures(janus, "a red circle", seed=seed)

        threads = [threading.Thread(target=run, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone
