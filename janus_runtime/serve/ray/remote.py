"""The model of an ingress replica: it has none, and sends each request to a replica that has, to another one where that is lost."""

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, Metric
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from ...bundle.manifest import Manifest
from ...decoding.handle import Post
from ...errors import Busy, Cancelled, JanusError, ReplicaLost
from ...events import Event, Failed, Finished
from ...pictures.image import fit
from ...prompt import Message
from ..traffic import Cancellable
from . import fleet
from .arguments import Arguments
from .calls import Alive, Call, Description, Item, Refused, Taken, is_fault
from .fleet_metrics import collect
from .repeat import Repeat

_log = logging.getLogger("janus_runtime.serve")
# A conversation that begins with less and has one turn is as fast anywhere.
_MIN_HEAD_CHARS = 400


class _Lost(Exception):
    """A replica failed a call. `error`: what the client gets if no other takes it."""

    def __init__(self, reason: str, error: Exception) -> None:
        super().__init__(reason)
        self.error = error


class RemoteModel:
    """See `Model`. Of the event loop's thread."""

    def __init__(self, description: Description, arguments: Arguments, replicas: DeploymentHandle, peers: DeploymentHandle) -> None:
        """`replicas` have the model; `peers` are the ingress replicas, this one included."""
        self._description = description
        self._arguments = arguments
        self._peers = peers
        self._run = replicas.options(method_name="run", stream=True)
        self._registry = CollectorRegistry()
        self._repeats = Counter(
            "janus_repeats", "Requests that were sent to another replica, by why: died, silent, fault, busy.", ("reason",),
            registry=self._registry,
        )  # fmt: skip

    @property
    def manifest(self) -> Manifest:
        return self._description.manifest

    @property
    def backend(self) -> str:
        return self._description.backend

    async def submit_drawing(self, prompt: str, n: int, *, post: Post, **settings: Any) -> Cancellable:
        image = settings.pop("image", None)
        if image is not None:
            image = await asyncio.to_thread(fit, image, self.manifest.image_input)
        call = self._call("drawing", (prompt, n), {**settings, "image": image}, n * (2 if image is None else 3))
        return await self._submit(call, post)

    async def submit_answer(self, messages: Sequence[Message], *, post: Post, **settings: Any) -> Cancellable:
        fitted = await asyncio.to_thread(self._fit, messages)
        call = self._call("answer", (fitted,), settings, 1)
        return await self._submit(dataclasses.replace(call, head=find_head(fitted)), post)

    def _fit(self, messages: Sequence[Message]) -> list[Message]:
        """Photos as small as the encoder sees them."""
        spec = self.manifest.image_input
        return [dataclasses.replace(each, images=tuple(fit(image, spec) for image in each.images)) for each in messages]

    def _call(self, kind: Any, asked: tuple[Any, ...], settings: dict[str, Any], rows: int) -> Call:
        rows = min(rows, self._arguments.max_rows)
        return Call(secrets.token_hex(8), fleet.here.ingress, kind, asked, settings, rows)

    async def _submit(self, call: Call, post: Post) -> Cancellable:
        run = _Run(self, call, post)
        await run.taken
        return run

    def why_not_ready(self, max_queue: int) -> str | None:
        known = fleet.here.stats.values()
        if known and all(stats.status.waiting >= max_queue for stats in known):
            return "the queues of all replicas are full"
        return None

    async def collect(self, served: Sequence[Metric]) -> list[Metric]:
        return await collect(self.own_families(served), self._peers, self.manifest.name)

    def own_families(self, served: Sequence[Metric]) -> list[Metric]:
        """Of this process."""
        return [*served, *self._registry.collect(), *self._head_families()]

    def _head_families(self) -> Iterator[Metric]:
        for key, text, count in (
            ("kept_calls", "Turns of conversations that went to the replica of their conversation.", fleet.here.kept),
            ("spilled_calls", "Turns that went elsewhere, since that replica was full or not to be trusted.", fleet.here.spilled),
        ):
            counter = CounterMetricFamily(f"janus_{key}", text, labels=["model_name"])
            counter.add_metric([self.manifest.name], count)
            yield counter

    async def stream(self, call: Call) -> AsyncGenerator[Item, None]:
        """Items of one run on one replica. Raises _Lost where they end too early or do not come."""
        items = self._run.remote(call)
        silence = self._arguments.silence
        try:
            while True:
                item = await asyncio.wait_for(anext(items), silence)
                yield item
                if isinstance(item, Finished | Failed | Refused):
                    return
        except StopAsyncIteration:
            raise _Lost("died", ReplicaLost("the replica stopped; send the request again")) from None
        except asyncio.TimeoutError:
            raise _Lost("silent", ReplicaLost(f"no replica gave a sign of life within {silence:g} s; send the request again")) from None
        except BackPressureError:
            raise _Lost("busy", Busy("too many requests wait for a replica; try again later", 5.0)) from None
        except (RayError, RayServeException) as error:
            reason = type(error).__name__
            raise _Lost("died", ReplicaLost(f"the replica with this request was lost ({reason}); send the request again")) from error
        finally:
            items.cancel()

    def see_repeat(self, call: Call, reason: str) -> Call:
        """The call for its next replica; the one that failed it is avoided for a while, by others too unless it was only busy."""
        self._repeats.labels(reason).inc()
        replica = fleet.here.where(call)
        _log.warning("call %s goes to another replica: %s %s", call.id, replica or "none", reason)
        if replica is None:
            return call
        if reason != "busy":
            # By then a frozen one was replaced, and one that was cut off may be back.
            fleet.here.suspect(replica, 3 * self._arguments.silence)
        return dataclasses.replace(call, avoid=call.avoid | {replica})

    @property
    def attempts(self) -> int:
        return self._arguments.attempts


class _Run:
    """A call until its last event, over as many replicas as it takes. `taken` ends when a replica has it, or with why none would."""

    def __init__(self, model: RemoteModel, call: Call, post: Post) -> None:
        self._model = model
        self._call = call
        self._post = post
        self._began = time.monotonic()
        self._deadline_s: float | None = call.settings.get("deadline_s")
        self._repeat = Repeat()
        self._loop = asyncio.get_running_loop()
        self.taken: asyncio.Future[None] = self._loop.create_future()
        self._task = asyncio.ensure_future(self._attempt_all())

    def cancel(self) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def _attempt_all(self) -> None:
        try:
            for attempt in range(1, self._model.attempts + 1):
                try:
                    await self._attempt()
                    return
                except _Lost as lost:
                    if attempt == self._model.attempts:
                        raise lost.error from None
                    self._call = self._model.see_repeat(self._call, str(lost))
                    if self._deadline_s is not None:
                        left = self._deadline_s - (time.monotonic() - self._began)
                        self._call = dataclasses.replace(self._call, settings={**self._call.settings, "deadline_s": max(left, 0.0)})
        except asyncio.CancelledError:
            self._end(Cancelled("the request was cancelled"))
        except Exception as error:
            self._end(error)
        finally:
            fleet.here.release(self._call)

    async def _attempt(self) -> None:
        """Raises _Lost where another replica may do better, and what the model refuses the request with."""
        self._repeat.begin()
        async with contextlib.aclosing(self._model.stream(self._call)) as items:
            async for item in items:
                if isinstance(item, Refused):
                    fleet.here.place(self._call, item.replica)
                    self._check(item.error, "busy" if isinstance(item.error, Busy) else "fault")
                    raise item.error
                if isinstance(item, Taken):
                    fleet.here.place(self._call, item.replica)
                    if not self.taken.done():
                        self.taken.set_result(None)
                elif not isinstance(item, Alive):
                    if isinstance(item, Failed):
                        self._check(item.error, "fault")
                    self._hear(item)

    def _check(self, error: Exception, reason: str) -> None:
        if isinstance(error, Busy) or is_fault(error):
            raise _Lost(reason, error)

    def _hear(self, event: Event) -> None:
        heard = self._repeat.hear(event)
        if heard is not None:
            self._post(heard)

    def _end(self, error: Exception) -> None:
        if not self.taken.done():
            self.taken.set_exception(error)
        else:
            self._post(Failed(error if isinstance(error, JanusError | MemoryError) else JanusError(f"{type(error).__name__}: {error}")))


def find_head(messages: Sequence[Message]) -> bytes | None:
    """What tells this conversation from others and stays while it grows: all up to the first message of its user. None where too little
    was said that a replica could reuse."""
    first = next(number for number, each in enumerate(messages) if each.role == "user")
    head = messages[: first + 1]
    chars = sum(len(each.text) for each in head)
    if len(messages) == len(head) and chars < _MIN_HEAD_CHARS and not any(each.images for each in head):
        return None
    digest = hashlib.sha256()
    for each in head:
        digest.update(f"{each.role}\0{len(each.text)}\0{each.text}\0{len(each.images)}\0".encode(errors="surrogatepass"))
        for image in each.images:
            digest.update(image.tobytes())
    return digest.digest()
