import ctypes
import gc
import inspect
import resource
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

import janus_runtime
from janus_runtime.backends.ort_cpu import OrtBinding
from janus_runtime.decoding.sessions import open_session
from janus_runtime.drawing.request import GeneratedImage
from janus_runtime.errors import Cancelled, JanusError, NumericalError, PromptError
from testing.sessions import wait_until_idle
from tests.marks import needs_int8_cache

libc = ctypes.CDLL(None)


def ids(pictures):
    return [picture.image_ids.tolist() for picture in pictures]


def test_pictures_come_in_order_with_their_seeds(janus):
    pictures = janus.generate(["a cat", "two large dogs"], n=2, seed=5)
    assert [(p.prompt, p.seed) for p in pictures] == [("a cat", 5), ("a cat", 6), ("two large dogs", 5), ("two large dogs", 6)]
    for picture in pictures:
        assert picture.image.size == (64, 64) and picture.image.mode == "RGB"
        assert picture.image_ids.dtype == np.int32 and picture.image_ids.shape == (16,)
        assert {"load", "prefill", "steps", "step", "decode"} <= picture.timings.keys()


def test_one_prompt_may_be_a_string(janus):
    assert ids(janus.generate("a cat", seed=5)) == ids(janus.generate(["a cat"], seed=5))


def test_picture_i_is_picture_0_of_seed_plus_i(janus):
    together = janus.generate("a cat", n=3, seed=10)
    assert ids(together) == [ids(janus.generate("a cat", seed=10 + i))[0] for i in range(3)]


@pytest.mark.parametrize(
    ("model", "precision"),
    [("tiny", "fp32"), *(pytest.param(model, "int4", marks=needs_int8_cache) for model in ("tiny", "small"))],
)
def test_company_changes_no_id_and_no_pixel(bundles, model, precision):
    """In the reference and in the precision that Janus (`small` has its template) and Janus-Pro have on a CPU by default."""
    texts = ["a cat", "two large dogs left of a tree", "a cat on a mat " * 12]
    with janus_runtime.load(bundles(model, precision), backend="cpu") as janus:
        alone = {(text, seed): janus.generate(text, seed=seed)[0] for text in texts for seed in (3, 4)}
        for order in (texts, texts[::-1], [texts[0], texts[2], texts[1]]):
            for batch_size in (1, 2, 3, 8):
                for picture in janus.generate(order, n=2, seed=3, batch_size=batch_size):
                    own = alone[picture.prompt, picture.seed]
                    assert ids([picture]) == ids([own]) and picture.image.tobytes() == own.image.tobytes()


def test_the_pixels_are_what_the_ids_say(janus):
    (picture,) = janus.generate("a cat", seed=1)
    decoder = janus._engines["image_decoder"]
    pixels = decoder.run({"image_ids": picture.image_ids[None]})["pixels"][0]
    expected = np.clip((pixels.transpose(1, 2, 0) + 1) / 2 * 255, 0, 255).astype(np.uint8)
    assert np.array_equal(np.asarray(picture.image), expected)


def test_settings_reach_the_draw(janus):
    base = ids(janus.generate("a cat", seed=2))
    assert ids(janus.generate("a cat", seed=2, cfg_weight=janus.manifest.defaults.cfg_weight)) == base
    for settings in ({"seed": 3}, {"cfg_weight": 1.0}, {"temperature": 3.0}, {"top_k": 2}, {"top_p": 0.2}):
        assert ids(janus.generate("a cat", **{"seed": 2, **settings})) != base, settings
    greedy = ids(janus.generate("a cat", temperature=0, seed=2))
    assert greedy == ids(janus.generate("a cat", temperature=0, seed=99)) == ids(janus.generate("a cat", top_k=1))


def test_prefill_computes_two_rows_a_prompt(janus, monkeypatch):
    """A prefill of 2n equal rows would be the costliest mistake here. All pictures begin together."""
    shapes, run = [], OrtBinding.run

    def spy(binding, inputs, stop=None):
        if "seqlens_k" in inputs:
            shapes.append(inputs["embeds"].shape[:2])
        return run(binding, inputs, stop)

    monkeypatch.setattr(OrtBinding, "run", spy)
    janus.generate(["a cat under a tree", "two large dogs and a cat"], n=3)
    prefilled = [shape for shape in shapes if shape[0] == 1]
    # Blank prompts of a length that was drawn before are there already.
    assert 2 <= len(prefilled) <= 4 and all(tokens > 1 for _, tokens in prefilled)
    assert shapes[len(prefilled) :] == [(12, 1)] * 15


def test_progress_and_stream(janus):
    """A picture comes after its last step; the next ones are being drawn meanwhile."""
    steps, seen = [], []
    for picture in janus.stream("a cat", n=3, batch_size=2, on_step=lambda *s: steps.append(s)):
        seen.append((picture.image_ids.tolist(), len(steps)))
    assert steps == [(i, 32) for i in range(1, 33)]
    assert [picture for picture, _ in seen] == ids(janus.generate("a cat", n=3, batch_size=2))
    assert all(count >= least for (_, count), least in zip(seen, [16, 16, 32], strict=True))


def test_generate_takes_what_stream_takes(janus):
    stream, generate = inspect.signature(janus.stream), inspect.signature(janus.generate)
    assert stream.parameters == generate.parameters and generate.return_annotation == list[GeneratedImage]


@pytest.mark.parametrize("arguments", [{"n": 0}, {"seed": -1}, {"temperature": float("nan")}, {"image": "absent.png"}, {"prompt": " "}])
def test_a_stream_checks_its_settings_when_called(janus, arguments):
    with pytest.raises((ValueError, JanusError)):
        janus.stream(**{"prompt": "a cat", **arguments})


def test_a_closed_stream_gives_its_rows_back(janus):
    gc.disable()
    try:
        stream = janus.stream("a cat", n=4, batch_size=2)
        picture = weakref.ref(next(stream))
        stream.close()
        wait_until_idle(janus)
        assert picture() is None and janus.status().rows == 0
        with pytest.raises(KeyboardInterrupt):
            janus.generate("a cat", on_step=_interrupt)
        wait_until_idle(janus)
        assert janus.status().rows == 0
    finally:
        gc.enable()


def _interrupt(step, total):
    raise KeyboardInterrupt


def test_cancel(janus):
    cancel = threading.Event()
    with pytest.raises(Cancelled, match="cancelled after 3 of 16 steps"):
        janus.generate("a cat", on_step=lambda step, total: step == 3 and cancel.set(), cancel=cancel)
    assert ids(janus.generate("a cat"))


def test_threads_share_a_model(janus):
    expected = ids(janus.generate("a cat", n=2, seed=4))
    results = [None] * 4
    threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, ids(janus.generate("a cat", n=2, seed=4)))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_no_global_random_state(janus):
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    janus.generate("a cat")
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, "got 0 prompts, n 1"),
        ({"n": 0}, "n 0, batch_size 8; expected 1 or more"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"seed": -1}, "seed is -1; expected 0 to"),
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"cfg_weight": float("nan")}, "cfg_weight is nan; expected -1000 to 1000"),
    ],
)
def test_settings_out_of_range(janus, arguments, message):
    with pytest.raises(ValueError, match=message):
        janus.generate(**{"prompt": "a cat", **arguments})


def test_a_bad_prompt_fails_before_anything_is_drawn(janus):
    with pytest.raises(PromptError):
        janus.generate(["a cat", " "], on_step=lambda *_: pytest.fail("drew"))


def test_numpy_numbers_are_numbers(janus):
    for kind in (np.int64, np.int32, np.uint8):
        pictures = janus.generate("a cat", n=kind(2), seed=kind(255 if kind is np.uint8 else 3))
        assert ids(pictures) == ids(janus.generate("a cat", n=2, seed=pictures[0].seed))
        assert type(pictures[1].seed) is int and pictures[1].seed == pictures[0].seed + 1
    with pytest.raises(TypeError):
        janus.generate("a cat", seed=1.5)


def test_after_close(tiny):
    import janus_runtime

    with janus_runtime.load(tiny) as opened:
        answer = opened.chat().say("hello", max_tokens=900)
        next(answer)
    with pytest.raises(JanusError, match="this model is closed; load it again"):
        opened.generate("a cat")
    with pytest.raises(JanusError, match="this model is closed; load it again"):
        list(answer)


def resident_mb():
    """Without what the C library keeps of freed memory."""
    libc.malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc, which Linux has")
@pytest.mark.parametrize("how", ["closed", "failed", "cancelled"])
def test_memory_comes_back(janus, how):
    """50 rounds of a session of 20 MB, however it ends, leave nothing behind, with no collector to help."""

    def draw_and_cancel():
        cancel = threading.Event()
        with pytest.raises(Cancelled):
            janus.generate("a cat", n=32, batch_size=32, on_step=lambda step, total: step == 3 and cancel.set(), cancel=cancel)

    def fill_and_close(patch):
        with open_session(janus._engines, "image", 64, 1000) as session:
            prompt = janus._engines.embed_text(np.arange(6, 900, dtype=np.int32) % 300)
            session.prefill([prompt], [0], "image")
            for row in range(1, 64):
                session.copy(0, row)
            if how == "failed":
                patch.setattr(janus._engines, "predict", lambda *given: (_ for _ in ()).throw(NumericalError("NaN")))
                with pytest.raises(NumericalError):
                    session.step(np.zeros(64, np.int32))

    def play():
        if how == "cancelled":
            return draw_and_cancel()
        with pytest.MonkeyPatch.context() as patch:
            fill_and_close(patch)

    gc.disable()
    try:
        play()
        before = resident_mb()
        for _ in range(50):
            play()
        assert resident_mb() - before < 20
    finally:
        gc.enable()
