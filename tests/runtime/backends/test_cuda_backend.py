"""The cuda backend as a whole, over CUDA made of host memory: its ids, its threads, its captures, and what it leaves after a fault."""

import itertools
import logging
import threading
import time

import pytest

from janus_runtime.backends.ort_cuda import OrtCuda
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.decoding import capture
from janus_runtime.errors import BackendError, JanusError
from janus_runtime.janus import janus_over
from testing.fake_cuda import FakeCuda, FakeSession
from testing.sessions import wait_until_idle
from testing.stand_in import StandIn
from tests.marks import needs_int8_cache

pytestmark = needs_int8_cache  # for the bundle that is at hand with fp16 caches: the int4 one
PROMPTS = ["a red circle", "two small green crosses on black"]


@pytest.fixture
def cuda(library, monkeypatch):
    monkeypatch.setattr(capture, "_refused", set())
    with FakeCuda(library, limit=2**31).installed() as cuda:
        yield cuda


def opened(path, backend=OrtCuda):
    bundle = Bundle.open(path)
    return janus_over(bundle, backend(bundle))


def pictures(janus, *arguments, **settings):
    return [picture.image_ids.tolist() for picture in janus.generate(*arguments, **settings)]


@pytest.fixture(scope="module")
def expected(bundles):
    """`expected(prompts, …)` -> ids of the same graphs over a device of NumPy."""
    with opened(bundles("tiny", "int4"), lambda bundle: StandIn(flavour="gqa_cuda", rows=None, lengths=(320, 480), chunk=480)) as janus:
        yield lambda *arguments, **settings: pictures(janus, *arguments, **settings)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"top_k": 30, "top_p": 0.9}], ids=str)
def test_pictures(cuda, bundles, expected, settings):
    """Two prompts of different lengths, drawn twice: the second time every step is a kept list of calls and captured graphs."""
    settings = {"n": 2, "seed": 11, "batch_size": 4, **settings}
    with opened(bundles("tiny", "int4")) as janus:
        for _ in range(2):
            assert pictures(janus, PROMPTS, **settings) == expected(PROMPTS, **settings)
        steps = janus.manifest.image_output.num_tokens - 1
        captured = {session.path.rsplit("/")[-1]: session.captured for session in cuda.sessions if session.captured}
        assert sorted(captured) == ["image_head.onnx", "language_model.gqa_cuda.onnx"]
        assert all(sum(runs.values()) == 2 * steps - 1 for runs in captured.values()), "all but the very first step is a replay"


def test_a_replayed_step_binds_nothing_anew(cuda, bundles, monkeypatch):
    bindings = []
    real = FakeSession.io_binding
    monkeypatch.setattr(FakeSession, "io_binding", lambda self: bindings.append(self.path.rsplit("/")[-1]) or real(self))
    with opened(bundles("tiny", "int4")) as janus:
        janus.generate("x")
        # Prefill, the first step, and the first replay.
        assert bindings.count("language_model.gqa_cuda.onnx") == 3 and bindings.count("image_head.onnx") == 3
        bindings.clear()
        janus.generate("x")
        assert bindings.count("language_model.gqa_cuda.onnx") == 1 and bindings.count("image_head.onnx") == 1


def test_graphs_of_fp32_are_computed_in_fp32(cuda, bundles):
    with opened(bundles("tiny", "int4")) as janus:
        janus.generate("x")
    options = {session.path.rsplit("/")[-1]: session.provider for session in cuda.sessions}
    assert {each["use_tf32"] for each in options.values()} == {0}
    assert {name for name, each in options.items() if each["enable_cuda_graph"]} <= {
        f"{name}.onnx" for name in ("language_model.gqa_cuda", "image_head", "text_head", "text_draw")
    }
    assert not options["image_decoder.onnx"]["enable_cuda_graph"]


def in_threads(*calls):
    errors = []

    def guarded(call):
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_draw_while_others_capture_and_open_graphs(cuda, bundles, expected):
    seeds = range(0, 80, 20)
    with opened(bundles("tiny", "int4")) as janus:
        drawn, engines = {}, janus._engines

        def draw(seed):
            drawn[seed] = pictures(janus, PROMPTS[0], seed=seed, n=2)

        def open_graphs():
            for _ in range(20):
                time.sleep(0.01)
                engines.backend.load(engines.bundle, "text_embed").close()

        in_threads(*(lambda seed=seed: draw(seed) for seed in seeds), open_graphs)
        assert drawn == {seed: expected(PROMPTS[0], seed=seed, n=2) for seed in seeds}


def test_a_thread_that_waits_does_not_end_a_capture(cuda, bundles, expected):
    """Waiting threads do not hold the lock, and CUDA forbids them to wait while another thread captures, unless they ask for it."""
    with opened(bundles("tiny", "int4")) as janus:
        device, waits = janus._engines.backend._device, []
        cuda.while_capturing = lambda: in_threads(lambda: waits.append(device.event().wait()))
        assert pictures(janus, PROMPTS[0], seed=3) == expected(PROMPTS[0], seed=3)
        assert len(waits) >= 2


def test_every_call_of_onnx_runtime_is_made_by_one_thread(cuda, bundles):
    """It keeps a context and its graphs for each thread, for ever."""
    before = set(threading.enumerate())
    with opened(bundles("tiny", "int4")) as janus:
        for _ in range(6):
            in_threads(lambda: janus.generate("x"))
        assert len({thread for session in cuda.sessions for thread, _ in session.captured}) == 1
    assert set(threading.enumerate()) <= before


def test_captured_graphs_go_with_their_loop(cuda, bundles):
    with opened(bundles("tiny", "int4")) as janus:
        janus.generate("x")
        wait_until_idle(janus)
        assert any(session.captured for session in cuda.sessions)
        with janus._engines.backend._device.lock:
            janus._engines._loops.free()
        assert not any(session.captured for session in cuda.sessions)
        assert len(janus.generate("x")) == 1


def test_without_capture(cuda, bundles, expected, monkeypatch):
    monkeypatch.setenv("JANUS_CAPTURE", "0")
    with opened(bundles("tiny", "int4")) as janus:
        assert pictures(janus, PROMPTS, seed=2) == expected(PROMPTS, seed=2)
        assert not any(session.captured or session.provider["enable_cuda_graph"] for session in cuda.sessions)


def test_a_setting_of_capture_that_is_none(cuda, bundles, monkeypatch):
    monkeypatch.setenv("JANUS_CAPTURE", "no")
    with pytest.raises(BackendError, match=r"JANUS_CAPTURE is 'no'; expected 0 \(no captured steps\) or 1"):
        opened(bundles("tiny", "int4"))


def test_a_refused_capture_is_one_warning_and_the_same_picture(cuda, bundles, expected, monkeypatch, caplog):
    monkeypatch.setattr(cuda, "end_capture", lambda: (_ for _ in ()).throw(RuntimeError("CUDA failure 901\nmore")))
    with opened(bundles("tiny", "int4")) as janus, caplog.at_level(logging.WARNING):
        assert pictures(janus, PROMPTS, seed=2) == expected(PROMPTS, seed=2)
        assert pictures(janus, PROMPTS, seed=2) == expected(PROMPTS, seed=2)
    (warning,) = caplog.messages
    assert warning == "ONNX Runtime could not be captured as a graph of the GPU, so steps are slower: CUDA failure 901"


def test_a_session_that_refuses_capture_at_its_opening(cuda, bundles, expected, monkeypatch, caplog):
    """As ONNX Runtime does where a graph copies between host and device."""
    real = cuda.wait_for_the_gpu

    def refuse():
        if cuda.sessions and not caplog.messages:
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        real()

    monkeypatch.setattr(cuda, "wait_for_the_gpu", refuse)
    with caplog.at_level(logging.WARNING), opened(bundles("tiny", "int4")) as janus:
        cuda.sessions.append(None)
        janus._engines.open("image_head")
        cuda.sessions.pop(0)
        assert pictures(janus, PROMPTS, seed=2) == expected(PROMPTS, seed=2)
    assert len(caplog.messages) == 1 and "cannot use the graph capture feature" in caplog.messages[0]


FAULTS = ("CUDA_ERROR_LAUNCH_FAILED", "CUDA_ERROR_OUT_OF_MEMORY", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")


@pytest.mark.parametrize("every, kinds", [(53, 1), pytest.param(1, 3, marks=pytest.mark.slow)])
def test_a_fault_anywhere_in_a_draw(cuda, bundles, expected, every, kinds):
    """Each call in turn fails once: the picture is right all the same, or there is one error; the next picture is right."""
    wanted = expected("a red circle", seed=5)
    with opened(bundles("tiny", "int4")) as janus:
        device, failures = janus._engines.backend._device, 0

        def draw(fresh):
            """Fresh, with nothing captured yet."""
            if fresh:
                with device.lock:
                    device.reclaim()
            return pictures(janus, "a red circle", seed=5)

        for fresh in (True, False):
            assert draw(fresh) == wanted
            start = cuda.count
            assert draw(fresh) == wanted
            calls = cuda.count - start
            assert calls > 200
            for number, kind in itertools.product(range(1, calls + 1, every), range(kinds)):
                if fresh:
                    with device.lock:
                        device.reclaim()
                cuda.fail_with, cuda.fail_at = FAULTS[(number + kind) % len(FAULTS)], cuda.count + number
                try:
                    assert draw(False) == wanted
                except JanusError as error:
                    failures += 1
                    assert "\n" not in str(error)
                cuda.fail_at = None
                assert draw(False) == wanted, f"after {cuda.fail_with} at call {number} of {calls}"
        assert failures
