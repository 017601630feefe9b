"""What becomes of a call when replicas die, fall silent, refuse or fail: over replicas that do what the test says."""

import asyncio

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from janus_runtime.errors import Busy, Cancelled, JanusError, NumericalError, PromptError, ReplicaLost
from janus_runtime.events import Drawn, Failed, Finished, Progress, Started, Usage
from janus_runtime.serve.ray import fleet
from janus_runtime.serve.ray.arguments import Arguments
from janus_runtime.serve.ray.calls import Alive, Description, Refused, Taken
from janus_runtime.serve.ray.remote import RemoteModel

USAGE = Usage(1, 0, 0, 4)
WHOLE = [Started(1.0), Progress(1, 4), Progress(4, 4), Drawn(0, "picture"), Finished(USAGE, None)]
HANG = object()


class Handle:
    """Each call of `run` goes on as the next script says: items, exceptions to raise, HANG."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.calls = []
        self.num_cancelled = 0

    def options(self, **stated):
        assert stated == {"method_name": "run", "stream": True}
        return self

    def remote(self, call):
        self.calls.append(call)
        return Stream(self, self.scripts.pop(0))


class Stream:
    def __init__(self, handle, script):
        self._handle, self._script = handle, list(script)

    async def __anext__(self):
        if not self._script:
            raise StopAsyncIteration
        item = self._script.pop(0)
        if item is HANG:
            await asyncio.Event().wait()
        if isinstance(item, BaseException):
            raise item
        return item

    def cancel(self):
        self._handle.num_cancelled += 1


@pytest.fixture
def draw(model, monkeypatch):
    """`draw(script, …)` -> the events of a drawing over replicas r0, r1, …, and the handle."""
    monkeypatch.setattr(fleet, "here", fleet.Fleet(ingress="me"))

    def run(*scripts, silence=0.2, attempts=3, cancel_after=None, deadline_s=100.0):
        async def go():
            handle = Handle(*scripts)
            remote = RemoteModel(Description(model.manifest, "cpu"), Arguments(silence=silence, attempts=attempts), handle, None)
            events, done = [], asyncio.Event()

            def post(event):
                events.append(event)
                if isinstance(event, Finished | Failed):
                    done.set()

            submitted = await remote.submit_drawing("a red circle", 2, post=post, seed=7, deadline_s=deadline_s)
            if cancel_after is not None:
                await asyncio.sleep(cancel_after)
                submitted.cancel()
            await asyncio.wait_for(done.wait(), 10)
            return events, handle

        return asyncio.run(go())

    return run


def on(number, *items):
    return [Taken(f"r{number}"), *items]


def test_a_call_is_heard_to_its_end(draw):
    events, handle = draw(on(0, Alive(), *WHOLE))
    assert events == WHOLE
    (call,) = handle.calls
    assert (call.asked, call.rows, call.ingress, call.settings["seed"]) == (("a red circle", 2), 4, "me", 7)
    assert handle.num_cancelled == 1 and fleet.here.where(call) is None


@pytest.mark.parametrize(
    "end", [[ActorDiedError()], [], [HANG], [Failed(JanusError("RuntimeError: the engine broke"))], [Failed(NumericalError("NaN"))]]
)
@pytest.mark.parametrize("heard", [0, 2, 4])
def test_one_that_is_lost_goes_on_elsewhere(draw, end, heard):
    events, handle = draw(on(0, *WHOLE[:heard], *end), on(1, *WHOLE))
    assert events == WHOLE
    first, second = handle.calls
    assert second.avoid == {"r0"} and (second.id, second.settings["seed"]) == (first.id, 7)
    # Others are not sent there either, for a while.
    assert fleet.here.rank(first, ["r0", "r1"])[-1] == "r0"


def test_before_any_replica_had_it(draw):
    events, handle = draw([HANG], [ActorDiedError()], on(2, *WHOLE))
    assert events == WHOLE and len(handle.calls) == 3


def test_a_full_replica_is_not_suspected(draw):
    events, handle = draw([Refused("r0", Busy("full", 3.0))], on(1, *WHOLE))
    assert events == WHOLE and handle.calls[1].avoid == {"r0"}
    assert fleet.here._suspects == {}


@pytest.mark.parametrize(
    ("scripts", "error", "message"),
    [
        ([[Refused("r0", PromptError("too long"))]], PromptError, "too long"),
        ([[Refused("r0", ValueError("n is 0"))]], ValueError, "n is 0"),
        ([[Refused(f"r{number}", Busy("full", 3.0))] for number in range(3)], Busy, "full"),
        ([[BackPressureError(num_queued_requests=1, max_queued_requests=1)]] * 3, Busy, "too many requests wait"),
        ([[HANG]] * 3, ReplicaLost, "no replica gave a sign of life within 0.05 s; send the request again"),
        ([[ActorDiedError()]] * 3, ReplicaLost, "lost \\(ActorDiedError\\); send the request again"),
    ],
)
def test_why_nobody_took_it(draw, scripts, error, message):
    with pytest.raises(error, match=message):
        draw(*scripts, silence=0.05)


def test_what_is_said_when_all_have_failed(draw):
    events, _ = draw(*[on(number, WHOLE[0], Failed(JanusError(f"fault {number}"))) for number in range(3)])
    assert events[0] == WHOLE[0] and [type(each) for each in events] == [Started, Failed]
    assert str(events[-1].error) == "fault 2"
    events, _ = draw(on(0, WHOLE[0], HANG), attempts=1, silence=0.05)
    assert isinstance(events[-1].error, ReplicaLost)


def test_an_error_of_the_request_is_not_tried_elsewhere(draw):
    failed = Failed(PromptError("no"), USAGE)
    events, handle = draw(on(0, failed))
    assert events == [failed] and len(handle.calls) == 1


def test_who_cancels_hears_so_and_the_replica_too(draw):
    events, handle = draw(on(0, WHOLE[0], HANG), silence=30, cancel_after=0.1)
    assert events[0] == WHOLE[0] and isinstance(events[-1].error, Cancelled)
    assert handle.num_cancelled == 1 and len(handle.calls) == 1


def test_time_that_has_passed_is_not_given_again(draw):
    _, handle = draw([HANG], on(1, *WHOLE), silence=0.3)
    first, second = (call.settings["deadline_s"] for call in handle.calls)
    assert first == 100.0 and 98.0 < second <= 99.71


def test_a_full_fleet_is_not_ready(model, monkeypatch):
    from tests.runtime.serve.ray.test_fleet import stats

    monkeypatch.setattr(fleet, "here", fleet.Fleet(ingress="me"))
    remote = RemoteModel(Description(model.manifest, "cpu"), Arguments(), Handle(), None)
    assert remote.why_not_ready(4) is None
    fleet.here.see({"a": stats()})
    assert remote.why_not_ready(4) is None and remote.why_not_ready(0) == "the queues of all replicas are full"
