"""Prometheus metrics: vLLM's names with the prefix `janus_`, in a registry of their own.

Labels: `model_name`; `kind`, which is `image` or `chat`.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..decoding.scheduler import Status
from ..errors import Cancelled
from ..events import Drawn, Event, Failed, Finished, Said, Started, Usage

Kind = Literal["image", "chat"]

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600)
_TOKEN_SECONDS = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 3)


def status_families(status: Status, name: str) -> Iterator[Metric]:
    """What `Janus.status` says of the model called `name`."""
    for key, text, gauge in (
        ("num_requests_running", "Requests that are being computed.", status.running),
        ("num_requests_waiting", "Requests that wait for rows.", status.waiting),
        ("rows", "Rows of the decoder in use.", status.rows),
        ("max_rows", "Rows that the decoder may use.", status.max_rows),
        ("kv_cache_bytes", "Bytes of keys and values held.", status.cache_bytes),
        ("kv_cache_max_bytes", "Bytes of keys and values that may be held.", status.memory_bytes),
    ):
        if gauge is not None:
            family = GaugeMetricFamily(f"janus_{key}", text, labels=["model_name"])
            family.add_metric([name], gauge)
            yield family
    for key, text, count in (
        ("steps", "Steps of the decoder.", status.steps),
        ("stepped_rows", "Rows of all steps together: by steps, the rows of a mean batch.", status.stepped_rows),
        ("prefilled_tokens", "Prompt tokens that were computed.", status.prefilled_tokens),
        ("reused_tokens", "Prompt tokens whose keys and values were there already.", status.reused_tokens),
    ):
        counter = CounterMetricFamily(f"janus_{key}", text, labels=["model_name"])
        counter.add_metric([name], count)
        yield counter


class _Families:
    """Families that were collected, as `generate_latest` asks for them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self.collect = lambda: families


def render(families: Sequence[Metric]) -> bytes:
    """Prometheus' text format."""
    return generate_latest(_Families(families))


class Metrics:
    """Of the requests of one process, to the model called `name`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._registry = CollectorRegistry()
        labels = ("model_name", "kind")
        self.queue_time = self._histogram("request_queue_time_seconds", "Time that a request waited for rows.", _SECONDS)
        self.first_token = self._histogram("time_to_first_token_seconds", "From a request to its first id.", _SECONDS)
        self.token_time = self._histogram(
            "inter_token_latency_seconds", "From one id of an answer or a picture to its next.", _TOKEN_SECONDS
        )
        self.latency = self._histogram("e2e_request_latency_seconds", "From a request to the end of its work.", _SECONDS)
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts, pictures included.", labels)
        self.generation_tokens = self._counter("generation_tokens", "Ids of answers and pictures.", labels)
        self.images = self._counter("images", "Pictures drawn.", labels)
        self.success = self._counter(
            "request_success", "Ended requests, by why: stop, length, abort (the client went away) or error.", (*labels, "finished_reason")
        )
        self.http_requests = self._counter("http_requests", "HTTP requests by route and status.", ("path", "status"))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"janus_{name}", text, ("model_name", "kind"), buckets=buckets, registry=self._registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"janus_{name}", text, labels, registry=self._registry)

    def families(self) -> list[Metric]:
        return list(self._registry.collect())

    def meter(self, kind: Kind) -> "Meter":
        return Meter(self, self._name, kind)


class Meter:
    """Counts one request: what its events say, for the metrics and for its line in the log. Not thread-safe."""

    def __init__(self, metrics: Metrics, name: str, kind: Kind) -> None:
        self.queued_ms: float | None = None
        self.images = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.finished: str | None = None
        self._metrics = metrics
        self._labels = (name, kind)
        self._began = time.monotonic()
        self._last: dict[int, float] = {}

    def see(self, number: int, event: Event, stopped: bool) -> None:
        """An event of part `number`. `stopped`: whether a stop string had ended what this is the last event of."""
        if isinstance(event, Started):
            self.queued_ms = max(event.queued_ms, self.queued_ms or 0.0)
            self._metrics.queue_time.labels(*self._labels).observe(event.queued_ms / 1e3)
        elif isinstance(event, Said):
            self._see_ids(number, len(event.text_ids))
        elif isinstance(event, Drawn):
            self._see_picture(event.picture.timings)
        elif isinstance(event, Finished):
            self._end("length" if event.stop == "length" else "stop", event.usage)
        elif isinstance(event, Failed):
            self._end("stop" if stopped else "abort" if isinstance(event.error, Cancelled) else "error", event.usage)

    def _see_ids(self, number: int, count: int) -> None:
        now = time.monotonic()
        last = self._last.get(number)
        if last is None:
            self._metrics.first_token.labels(*self._labels).observe(now - self._began)
        elif count:
            self._metrics.token_time.labels(*self._labels).observe((now - last) / count)
        self._last[number] = now

    def _see_picture(self, timings: dict[str, float]) -> None:
        """Its ids are not reported one by one; its timings tell of them."""
        if not self.images:
            first = sum(timings.get(stage, 0.0) for stage in ("load", "encode", "prefill")) + (self.queued_ms or 0.0)
            self._metrics.first_token.labels(*self._labels).observe(first / 1e3)
        if "step" in timings:
            self._metrics.token_time.labels(*self._labels).observe(timings["step"] / 1e3)
        self.images += 1
        self._metrics.images.labels(*self._labels).inc()

    def _end(self, reason: str, usage: Usage | None) -> None:
        self.finished = reason
        self._metrics.success.labels(*self._labels, reason).inc()
        if usage is not None:
            prompt = usage.text_tokens + usage.image_tokens
            self.prompt_tokens += prompt
            self.completion_tokens += usage.completion_tokens
            self._metrics.prompt_tokens.labels(*self._labels).inc(prompt)
            self._metrics.generation_tokens.labels(*self._labels).inc(usage.completion_tokens)

    def refuse(self) -> None:
        """The model did not take it: no work to be counted."""
        self.finished = "refused"

    def close(self, unfinished: bool) -> None:
        """`unfinished`: nobody waited for its last event."""
        if self.finished == "refused":
            return
        if unfinished:
            self._end("abort", None)
        self._metrics.latency.labels(*self._labels).observe(time.monotonic() - self._began)
