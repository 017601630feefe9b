"""How many replicas do how many people need? A simulation of requests, step by step, and arithmetic from what was measured.

    python -m bench.scale wait --result bench/results/scale.json     # p50 and p95 by replicas and load
    python -m bench.scale plan --result bench/results/serving-pro-1b.json --price 0.40     # pictures a second, machines, cost

`bench.cpu.two_replicas` measures the step times that `wait` takes, and compares the simulation with a real run.
"""

import heapq
import json
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

# Prompts are computed between steps, for so many times as long as a step takes: see docs/serving.md.
_PREFILL_SHARE = 2
_PEOPLE = (1_000, 100_000)


@dataclass(frozen=True)
class Timing:
    """Milliseconds. `step_ms` by rows, measured at some numbers of them; between these it is a line. `prefill_ms` of one row's prompt, in
    so many `prefill_calls` of the decoder; `overhead_ms` is what a request takes outside of the decoder; `pixels_ms` of one picture, made
    beside the steps one at a time."""

    step_ms: dict[int, float]
    prefill_ms: float
    overhead_ms: float
    pixels_ms: float = 0.0
    prefill_calls: int = 1

    def step(self, rows: int) -> float:
        known = sorted(self.step_ms)
        if rows > known[-1] and len(known) > 1:
            low, high = known[-2:]
            return self.step_ms[high] + (self.step_ms[high] - self.step_ms[low]) / (high - low) * (rows - high)
        return float(np.interp(rows, known, [self.step_ms[each] for each in known]))

    @classmethod
    def read(cls, stated: dict) -> "Timing":
        return cls(**{**stated, "step_ms": {int(rows): ms for rows, ms in stated["step_ms"].items()}})


@dataclass(frozen=True)
class Job:
    """A request that comes at `at_s`, wants `rows` and draws `ids` ids in each; the first one comes of the prompt."""

    at_s: float
    rows: int
    ids: int
    is_picture: bool = False


@dataclass(eq=False)
class _Lane:
    job: Job
    calls: int
    ids: int


@dataclass(eq=False)
class _Replica:
    waiting: deque[_Lane] = field(default_factory=deque)
    running: list[_Lane] = field(default_factory=list)
    pixels_free_s: float = 0.0
    step_ms: float = 0.0
    is_busy: bool = False

    @property
    def wanted(self) -> int:
        return sum(lane.job.rows for lane in (*self.waiting, *self.running))

    def advance(self, timing: Timing, max_rows: int) -> tuple[float, list[_Lane]]:
        """Who fits joins, a part of a prompt is computed, all take a step -> ms it takes, and who is done then."""
        rows = sum(lane.job.rows for lane in self.running)
        while self.waiting and rows + self.waiting[0].job.rows <= max_rows:
            rows += self.waiting[0].job.rows
            self.running.append(self.waiting.popleft())
        # One call at least, and more while they take no longer than that share of the last step. Requests take turns.
        prompts = deque(lane for lane in self.running if lane.calls)
        spent = 0.0
        while prompts and (not spent or spent < _PREFILL_SHARE * self.step_ms):
            lane = prompts.popleft()
            spent, lane.calls = spent + timing.prefill_ms / timing.prefill_calls, lane.calls - 1
            if lane.calls:
                prompts.append(lane)
            else:
                lane.ids -= 1
        drawing = [lane for lane in self.running if not lane.calls and lane.ids]
        self.step_ms = timing.step(sum(lane.job.rows for lane in drawing)) if drawing else 0.0
        for lane in drawing:
            lane.ids -= 1
        done = [lane for lane in self.running if not lane.ids]
        self.running = [lane for lane in self.running if lane.ids]
        return self.step_ms + spent, done


def simulate(jobs: Sequence[Job], replicas: int, timing: Timing, max_rows: int) -> list[float]:
    """Seconds from each request to its answer, in order of the jobs. A request goes where the fewest rows are wanted."""
    all_replicas = [_Replica() for _ in range(replicas)]
    seconds = [0.0] * len(jobs)
    numbers = {id(job): number for number, job in enumerate(jobs)}
    order = 0
    events: list[tuple[float, int, _Replica | None, object]] = []

    def plan(at_s: float, replica: _Replica | None, what: object) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (at_s, order, replica, what))

    def work(replica: _Replica, now: float) -> None:
        replica.is_busy = bool(replica.running or replica.waiting)
        if replica.is_busy:
            ms, done = replica.advance(timing, max_rows)
            plan(now + ms / 1e3, replica, done)

    for job in jobs:
        plan(job.at_s, None, job)
    while events:
        now, _, replica, what = heapq.heappop(events)
        if replica is None:
            assert isinstance(what, Job)
            replica = min(all_replicas, key=lambda each: each.wanted)
            replica.waiting.append(_Lane(what, timing.prefill_calls * what.rows, what.ids))
            if not replica.is_busy:
                work(replica, now)
            continue
        assert isinstance(what, list)
        for lane in what:
            end = now
            if lane.job.is_picture:
                end = replica.pixels_free_s = max(now, replica.pixels_free_s) + timing.pixels_ms / 1e3
            seconds[numbers[id(lane.job)]] = end - lane.job.at_s + timing.overhead_ms / 1e3
        work(replica, now)
    return seconds


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Times of requests that know nothing of each other, `rate` a second."""
    random, now = np.random.default_rng(seed), 0.0
    while (now := now + random.exponential(1 / rate)) < seconds:
        yield now


def capacity(timing: Timing, ids: int, max_rows: int) -> float:
    """Pictures a second of a full replica: two rows each."""
    at_once = max_rows // 2
    return at_once / ((timing.prefill_ms * 2 * at_once + (ids - 1) * timing.step(max_rows)) / 1e3)


def percentile(seconds: Sequence[float], share: float) -> float:
    return float(np.percentile(np.asarray(seconds), share))


@click.group()
def main() -> None:
    """Sizes of a service."""


@main.command()
@click.option("--result", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="With its timing.")
@click.option("--ids", type=click.IntRange(2), default=576, show_default=True, help="Of a picture.")
@click.option("--max-rows", type=click.IntRange(2), default=16, show_default=True)
@click.option("--replicas", multiple=True, type=click.IntRange(1), default=(1, 2, 4, 8, 16), show_default=True)
@click.option("--load", multiple=True, type=float, default=(0.3, 0.5, 0.7, 0.8, 0.9), show_default=True, help="Share of what they can.")
@click.option("--hours", type=float, default=2.0, show_default=True)
def wait(result: Path, ids: int, max_rows: int, replicas: tuple[int, ...], load: tuple[float, ...], hours: float) -> None:
    """How long pictures take, p50 and p95 in seconds, by replicas and load."""
    timing = Timing.read(json.loads(result.read_text())["timing"])
    each = capacity(timing, ids, max_rows)
    click.echo(f"one replica draws {each * 3600:.0f} pictures an hour, {max_rows // 2} at once")
    click.echo("| replicas | " + " | ".join(f"{share:.0%}" for share in load) + " |\n" + "| --- " * (len(load) + 1) + "|")
    for count in replicas:
        cells = []
        for share in load:
            jobs = [Job(at, 2, ids, is_picture=True) for at in arrivals(share * each * count, hours * 3600, seed=count)]
            seconds = simulate(jobs, count, timing, max_rows)
            cells.append(f"{percentile(seconds, 50):.0f}, {percentile(seconds, 95):.0f}")
        click.echo(f"| {count} | " + " | ".join(cells) + " |")


@main.command()
@click.option("--result", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Of bench.cpu.serving.")
@click.option("--pictures", type=float, default=4.0, show_default=True, help="Of one person in an hour.")
@click.option(
    "--load", type=click.FloatRange(0, 1, min_open=True), default=0.7, show_default=True, help="Share of its most that is planned."
)
@click.option("--price", type=float, required=True, help="Of one machine for an hour.")
def plan(result: Path, pictures: float, load: float, price: float) -> None:
    """Machines and cost for people who each want some pictures an hour."""
    report = json.loads(result.read_text())
    saturation = report["saturation"]
    rate = saturation["pictures"] / saturation["served_s"]
    click.echo(f"{report['bundle']} on {report['machine']['cpu']}, {report['machine']['cores']} cores: {rate:.4f} pictures a second")
    click.echo("| people an hour | pictures a second | machines | cost an hour | cost of 1,000 pictures |\n| --- | --- | --- | --- | --- |")
    for people in _PEOPLE:
        wanted = people * pictures / 3600
        machines = math.ceil(wanted / (rate * load))
        cost = machines * price
        click.echo(f"| {people:,} | {wanted:.1f} | {machines:,} | {cost:,.2f} | {cost / (people * pictures) * 1000:.2f} |")


if __name__ == "__main__":
    main()
