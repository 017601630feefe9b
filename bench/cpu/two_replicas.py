"""Does the simulation say what two replicas do? Step times and overhead are measured with both busy; then questions come at random.

    python -m bench.cpu.two_replicas BUNDLE --seed 1 --out bench/results/scale.json

Three runs, each with a seed of its own, go into one file; the last line is the median of what they say.
"""

import itertools
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from bench.machine import where, write_report
from bench.scale import Job, Timing, arrivals, percentile, simulate
from testing.ray_cluster import Cluster

_ROWS = (1, 2, 4)
_IDS = (8, 16, 24)
_KNOWN = 900_000
_NUMBERS = itertools.count(_KNOWN + 1)


def ask(cluster: Cluster, number: int, ids: int) -> float:
    """Seconds of a streamed answer. Prompts of one number are the same."""
    body = {
        "messages": [{"role": "user", "content": f"{number:06} what is there to see in the snow?"}],
        "max_tokens": ids,
        "seed": number,
        "temperature": 1.0,
        "stream": True,
    }
    began = time.perf_counter()
    with cluster.asking("POST", "/v1/chat/completions", body, timeout_s=280) as response:
        answer = response.read()
    if response.status != 200 or b'"error"' in answer or not answer.endswith(b"[DONE]\n\n"):
        raise click.ClickException(f"an answer with status {response.status}: {answer[-300:]!r}")
    return time.perf_counter() - began


def at_once(work: Sequence) -> list:
    """What each call gives, all in threads of their own."""
    found: list = [None] * len(work)

    def run(index: int) -> None:
        found[index] = work[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if None in found:
        raise click.ClickException("a request failed; see above")
    return found


def measure(cluster: Cluster) -> Timing:
    """With as many rows on each of the two replicas: each request goes where fewer rows are wanted.

    Of a prompt that was just answered nothing is left to compute: two lengths of such answers tell the steps from the rest.
    """

    def median(rows: int, ids: int, new: bool) -> float:
        found = []
        for _ in range(2):
            numbers = [next(_NUMBERS) if new else _KNOWN for _ in range(2 * rows)]
            found += at_once([lambda n=number: ask(cluster, n, ids) for number in numbers])
        return float(np.median(found)) * 1e3

    median(2, 4, new=False)
    step_ms = {rows: (median(rows, 28, new=False) - median(rows, 4, new=False)) / 24 for rows in _ROWS}
    known = median(1, 4, new=False)
    # Three of four ids come of steps.
    return Timing(step_ms, max(median(1, 4, new=True) - known, 0.0), max(known - 3 * step_ms[1], 0.0))


def run(index: int) -> None:
        found[index] = work[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if None in found:
        raise click.ClickException("a request failed; see above")
    return found


def measure(cluster: Cluster) -> Timing:
    """With as many rows on each of the two replicas: they take turns, for each request goes where fewer rows are wanted."""
    number = 900_000
    whole: dict[int, dict[int, float]] = {}
    for rows in _ROWS:
        whole[rows] = {}
        for ids in (4, 28):
            found = []
            for _ in range(2):
                number += 100
                calls = [lambda n=number + k, i=ids: ask(cluster, n, i) for k in range(2 * rows)]
                found += [times[-1] - times[0] for times in at_once(calls)]
            whole[rows][ids] = float(np.median(found))
    step_ms = {rows: (ends[28] - ends[4]) / 24 * 1e3 for rows, ends in whole.items()}
    # Of answers that have a replica to themselves: three of their four ids come of steps. What is left is the prompt and all else.
    rest_ms = whole[1][4] * 1e3 - 3 * step_ms[1]
    prefill_ms = statuses_prefill(whole, step_ms)
    return Timing(step_ms, prefill_ms, max(rest_ms - prefill_ms, 0.0))


def statuses_prefill(whole: dict[int, dict[int, float]], step_ms: dict[int, float]) -> float:
    """Prompts are computed one after another: the median of `rows` that come together waits for half of the others' more."""
    rows = _ROWS[-1]
    rest = {each: whole[each][4] * 1e3 - 3 * step_ms[each] for each in (1, rows)}
    return max((rest[rows] - rest[1]) / (rows - 1), 1.0)


def run(cluster: Cluster, rate: float, seconds: float, seed: int) -> tuple[list[Job], list[float]]:
    """The questions that came, and how long each answer took."""
    random = np.random.default_rng(seed)
    jobs = [Job(at, 1, int(random.choice(_IDS))) for at in arrivals(rate, seconds, seed)]
    began = time.perf_counter()

    def one(number: int, job: Job) -> float:
        time.sleep(max(began + job.at_s - time.perf_counter(), 0))
        ask(cluster, number, job.ids)
        return time.perf_counter() - (began + job.at_s)

    return jobs, at_once([lambda n=number, j=job: one(n + seed * 1000, j) for number, job in enumerate(jobs)])


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seed", type=int, required=True)
@click.option("--rate", type=float, default=0.5, show_default=True, help="Questions a second.")
@click.option("--seconds", type=float, default=140.0, show_default=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def main(bundle: Path, seed: int, rate: float, seconds: float, out: Path) -> None:
    """Compare the simulation with BUNDLE on two replicas."""
    with Cluster(bundle=str(bundle.resolve()), backend="cpu", max_rows=8, cpus=1, ingresses=1) as cluster:
        at_once([lambda n=number: ask(cluster, n, 4) for number in range(4)])
        timing = measure(cluster)
        click.echo(f"{timing}")
        jobs, real = run(cluster, rate, seconds, seed)
    simulated = simulate(jobs, 2, timing, 8)
    report = json.loads(out.read_text()) if out.exists() else {"question": "does the simulation say what two replicas do"}
    report |= {"bundle": bundle.name, **where(), "rate": rate}
    runs = {each["seed"]: each for each in report.get("runs", [])}
    runs[seed] = {
        "seed": seed,
        "questions": len(jobs),
        "timing": vars(timing),
        "real_s": {f"p{share}": percentile(real, share) for share in (50, 95)},
        "simulated_s": {f"p{share}": percentile(simulated, share) for share in (50, 95)},
    }
    report["runs"] = list(runs.values())
    ratios = {
        f"p{share}": [each["simulated_s"][f"p{share}"] / each["real_s"][f"p{share}"] for each in report["runs"]] for share in (50, 95)
    }
    report["simulated_by_real"] = {name: {"median": float(np.median(found)), "runs": found} for name, found in ratios.items()}
    write_report(out, report)
    click.echo(json.dumps(report["runs"][-1], indent=1))
    click.echo(json.dumps(report["simulated_by_real"]))


if __name__ == "__main__":
    main()
