"""A step that takes seconds ends when nobody is left who wants it, and nobody else feels it."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

import janus_runtime
from janus_runtime.decoding.stop import RunStop, RunStopped
from janus_runtime.errors import BackendError, Cancelled, JanusError
from testing.collector import Collector
from testing.sessions import wait_until_idle


@pytest.fixture
def flow(bundles):
    with janus_runtime.load(bundles("tiny-flow"), backend="cpu") as opened:
        yield opened


class EndsAtOnce(RunStop):
    """Set when the run has begun, before its first node."""

    @contextmanager
    def watching(self, end):
        with super().watching(end):
            self.set()
            yield


class TestStop:
    def test_before_a_run(self):
        stop = RunStop()
        stop.set()
        with pytest.raises(RunStopped), stop.watching(pytest.fail):
            pytest.fail("begun")

    def test_within_a_run_and_after_it(self):
        stop, ended = RunStop(), []
        with stop.watching(lambda: ended.append(True)):
            assert not stop.is_set and ended == []
            stop.set()
            assert stop.is_set and ended == [True]
        stop.set()
        assert ended == [True]


class TestRun:
    @pytest.fixture
    def engine(self, flow):
        return flow._engines["time_embed"]

    def test_ends_early_and_the_next_is_as_ever(self, engine):
        times = {"times": np.linspace(0, 1000, 7, dtype=np.float32)}
        expected = engine.run(times)
        with pytest.raises(RunStopped):
            engine.run(times, EndsAtOnce())
        for stop in (None, RunStop()):
            got = engine.run(times, stop)
            assert all(np.array_equal(got[name], expected[name]) for name in expected)

    def test_an_error_of_a_run_that_goes_on_is_its_own(self, engine):
        with pytest.raises(BackendError, match="got dtype float64"):
            engine.run({"times": np.zeros(3)}, RunStop())


class TestDrawing:
    """Cancelled where a step is computed: in its call."""

    @pytest.fixture
    def calls(self, flow, monkeypatch):
        """Of flow_step, as pictures in each and whether it was stopped; `calls.within[number]` is called in that call."""
        engine = flow._engines["flow_step"]
        run = engine.run

        class Calls(list):
            def __init__(self):
                self.within = {}

        calls = Calls()

        def watched(inputs, stop=None):
            number = len(calls)
            calls.append((len(inputs["latents"]), False))
            calls.within.get(number, lambda: None)()
            try:
                return run(inputs, stop)
            except RunStopped:
                calls[number] = (calls[number][0], True)
                raise

        monkeypatch.setattr(engine, "run", watched)
        return calls

    @pytest.mark.parametrize("step", [0, 3])
    def test_the_call_of_one_request_ends_with_it(self, flow, calls, step):
        collector = Collector()
        calls.within[step] = lambda: collector.handle.cancel()
        flow.preload()
        collector.handle = flow.submit_drawing("a cat", 2, post=collector.post, steps=6)
        assert isinstance(collector.wait().error, Cancelled)
        wait_until_idle(flow)
        assert calls == [(2, False)] * step + [(2, True)]
        assert flow.status().rows == 0 and flow.status().running == 0
        calls.within.clear()
        assert len(flow.generate("a cat", steps=6)) == 1

    def test_a_call_that_others_are_in_goes_on_for_them(self, flow, calls):
        expected = flow.generate("a cat", steps=6, seed=1)[0].latents
        calls.clear()
        one, other = Collector(), Collector()
        # The second joins while the first is in its first step.
        calls.within[0] = lambda: setattr(other, "handle", flow.submit_drawing("a cat", post=other.post, steps=6, seed=1))
        calls.within[3] = lambda: one.handle.cancel()
        one.handle = flow.submit_drawing("a cat", post=one.post, steps=6)
        assert isinstance(one.wait().error, Cancelled)
        assert np.array_equal(other.wait().pictures[0].latents, expected)
        assert not any(stopped for _, stopped in calls) and calls[3][0] == 2 and calls[-1][0] == 1

    def test_a_call_ends_once_all_in_it_are_cancelled(self, flow, calls):
        one, other = Collector(), Collector()
        calls.within[0] = lambda: setattr(other, "handle", flow.submit_drawing("a cat", post=other.post, steps=6, seed=1))
        calls.within[3] = lambda: (one.handle.cancel(), other.handle.cancel())
        one.handle = flow.submit_drawing("a cat", post=one.post, steps=6)
        assert isinstance(one.wait().error, Cancelled) and isinstance(other.wait().error, Cancelled)
        wait_until_idle(flow)
        assert calls[3] == (2, True) and len(calls) == 4

    def test_a_model_that_is_closed_does_not_wait_for_a_step(self, flow, calls):
        collector, closing = Collector(), threading.Thread(target=flow.close)

        def close():
            closing.start()
            wait_until(lambda: collector.handle.cancelled)

        calls.within[2] = close
        collector.handle = flow.submit_drawing("a cat", post=collector.post, steps=6)
        error = collector.wait().error
        closing.join()
        assert type(error) is JanusError and "this model is closed" in str(error)
        assert calls == [(1, False), (1, False), (1, True)]


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
