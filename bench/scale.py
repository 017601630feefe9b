"""How many replicas do how many people need? A simulation of requests, step by step, and arithmetic from what was measured.

    python -m bench.scale wait --result bench/results/serving-pro-1b.json     # p50 and p95 by replicas and load
    python -m bench.scale plan --result bench/results/serving-pro-1b.json --price 0.40     # pictures a second, machines, cost

`bench.cpu.two_replicas` compares the simulation with a real run.
"""

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
# Pictures in a full batch of `bench.cpu.serving`.
_AT_ONCE = 8


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
    def of_serving(cls, report: dict, ids: int) -> "Timing":
        """From a report of `bench.cpu.serving`: a picture alone, and a full batch of them. All that a picture takes lies in its steps."""
        saturation, alone = report["saturation"], report["partials"]["without_s"]
        batch_s = saturation["served_s"] / (saturation["pictures"] / _AT_ONCE)
        return cls({2: float(np.median(alone)) * 1e3 / ids, 2 * _AT_ONCE: batch_s * 1e3 / ids}, 0.0, 0.0)


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
    """`began_s`, `step_ms`, `num_steps`: what it is about, steps of the same rows one after another until `ends_s`."""

    waiting: deque[_Lane] = field(default_factory=deque)
    running: list[_Lane] = field(default_factory=list)
    wanted: int = 0
    pixels_free_s: float = 0.0
    began_s: float = 0.0
    step_ms: float = 0.0
    num_steps: int = 0
    ends_s: float = math.inf

    def begin(self, now: float, timing: Timing, max_rows: int) -> None:
        """Who fits joins, a part of a prompt is computed, all take a step; steps alone go on until somebody is done."""
        rows = sum(lane.job.rows for lane in self.running)
        while self.waiting and rows + self.waiting[0].job.rows <= max_rows:
            rows += self.waiting[0].job.rows
            self.running.append(self.waiting.popleft())
        # One call at least, and more while they take no longer than that share of the last step. Requests take turns.
        prompts = deque(lane for lane in self.running if lane.calls)
        spent_ms = 0.0
        while prompts and (not spent_ms or spent_ms < _PREFILL_SHARE * self.step_ms):
            lane = prompts.popleft()
            spent_ms, lane.calls = spent_ms + timing.prefill_ms / timing.prefill_calls, lane.calls - 1
            if lane.calls:
                prompts.append(lane)
            else:
                lane.ids -= 1
        drawing = self.drawing
        self.step_ms = timing.step(sum(lane.job.rows for lane in drawing)) if drawing else 0.0
        self.num_steps = 0 if not drawing else 1 if prompts else min(lane.ids for lane in drawing)
        self.began_s = now + spent_ms / 1e3
        self.ends_s = self.began_s + self.num_steps * self.step_ms / 1e3 if self.running else math.inf

    def hear(self, now: float) -> None:
        """Somebody came: the step that runs is the last before he may join."""
        if self.num_steps > 1:
            self.num_steps = min(max(math.ceil((now - self.began_s) * 1e3 / self.step_ms), 1), self.num_steps)
            self.ends_s = self.began_s + self.num_steps * self.step_ms / 1e3

    def end(self) -> list[_Lane]:
        """What was begun is done -> who is."""
        for lane in self.drawing:
            lane.ids -= self.num_steps
        done = [lane for lane in self.running if not lane.ids]
        self.running = [lane for lane in self.running if lane.ids]
        self.wanted -= sum(lane.job.rows for lane in done)
        return done

    @property
    def drawing(self) -> list[_Lane]:
        return [lane for lane in self.running if not lane.calls and lane.ids]


def simulate(jobs: Sequence[Job], replicas: int, timing: Timing, max_rows: int) -> list[float]:
    """Seconds from each request to its answer, in order of the jobs. A request goes where the fewest rows are wanted."""
    all_replicas = [_Replica() for _ in range(replicas)]
    seconds = {id(job): 0.0 for job in jobs}
    coming = deque(sorted(jobs, key=lambda job: job.at_s))
    while coming or any(replica.wanted for replica in all_replicas):
        replica = min(all_replicas, key=lambda each: each.ends_s)
        if coming and coming[0].at_s <= replica.ends_s:
            job = coming.popleft()
            replica = min(all_replicas, key=lambda each: each.wanted)
            is_idle = not replica.wanted
            replica.wanted += job.rows
            replica.waiting.append(_Lane(job, timing.prefill_calls * job.rows, job.ids))
            if is_idle:
                replica.begin(job.at_s, timing, max_rows)
            else:
                replica.hear(job.at_s)
            continue
        now = replica.ends_s
        for lane in replica.end():
            end = now
            if lane.job.is_picture:
                end = replica.pixels_free_s = max(now, replica.pixels_free_s) + timing.pixels_ms / 1e3
            seconds[id(lane.job)] = end - lane.job.at_s + timing.overhead_ms / 1e3
        replica.begin(now, timing, max_rows)
    return [seconds[id(job)] for job in jobs]


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
@click.option("--result", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Of bench.cpu.serving.")
@click.option("--ids", type=click.IntRange(2), default=576, show_default=True, help="Of a picture.")
@click.option("--replicas", multiple=True, type=click.IntRange(1), default=(1, 2, 4, 8, 16), show_default=True)
@click.option("--load", multiple=True, type=float, default=(0.3, 0.5, 0.7, 0.8, 0.9), show_default=True, help="Share of what they can.")
@click.option("--hours", type=float, default=10.0, show_default=True)
def wait(result: Path, ids: int, replicas: tuple[int, ...], load: tuple[float, ...], hours: float) -> None:
    """How long pictures take, p50 and p95 in seconds, by replicas and load."""
    timing, max_rows = Timing.of_serving(json.loads(result.read_text()), ids), 2 * _AT_ONCE
    each = capacity(timing, ids, max_rows)
    alone_s = timing.step(2) * ids / 1e3
    click.echo(f"one replica draws {each * 3600:.0f} pictures an hour, {_AT_ONCE} at once; alone a picture takes {alone_s:.0f} s")
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
