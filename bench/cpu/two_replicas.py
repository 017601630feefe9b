"""Does the simulation say what two replicas do? Step times and overhead are measured with both busy; then questions come at random.

    python -m bench.cpu.two_replicas BUNDLE --seed 1 --out bench/results/scale.json

Three runs, each with a seed of its own, go into one file, with the median of what they say.
"""

import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
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
        "messages": [{"role": "user", "content": f"{number:06}?"}],
        "max_tokens": ids,
        "seed": number,
        "temperature": 1.0,
        "stream": True,
    }
    began = time.perf_counter()
    with cluster.asking("POST", "/v1/chat/completions", body, timeout_s=280) as response:
        status, answer = response.status, response.read()
    if status != 200 or b'"error"' in answer or not answer.endswith(b"[DONE]\n\n"):
        raise click.ClickException(f"an answer with status {status}: {answer[-300:]!r}")
    return time.perf_counter() - began


def at_once(work: Sequence[Callable[[], float]]) -> list[float]:
    """What each call gives, all in threads of their own."""
    found: dict[int, float] = {}

    def call(index: int) -> None:
        found[index] = work[index]()

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) < len(work):
        raise click.ClickException(f"{len(work) - len(found)} of {len(work)} requests failed; their errors are above")
    return [found[index] for index in range(len(work))]


def median_ms(cluster: Cluster, rows: int, ids: int, is_new: bool) -> float:
    """Of answers with `rows` on each replica, since each goes where fewer rows are wanted; to a prompt that is new, or was answered."""
    found = []
    for _ in range(2):
        numbers = [next(_NUMBERS) if is_new else _KNOWN for _ in range(2 * rows)]
        found += at_once([partial(ask, cluster, number, ids) for number in numbers])
    return float(np.median(found)) * 1e3


def prefilled_tokens(cluster: Cluster) -> float:
    """Tokens of prompts that both replicas have computed so far."""
    # Each says so once a second.
    time.sleep(2.5)
    return sum(cluster.metric("janus_prefilled_tokens_total").values())


def measure(cluster: Cluster) -> tuple[Timing, float]:
    """Times, and tokens of a new prompt that are computed.

    Nothing is left to compute of a prompt that was answered: two lengths of such answers tell the steps from the rest.
    """
    median_ms(cluster, 2, 4, is_new=False)
    step_ms = {rows: (median_ms(cluster, rows, 36, False) - median_ms(cluster, rows, 6, False)) / 30 for rows in _ROWS}
    known = median_ms(cluster, 1, 6, is_new=False)
    before = prefilled_tokens(cluster)
    prefill_ms = max(median_ms(cluster, 1, 6, is_new=True) - known, 0.0)
    # Four answers. Five of six ids come of steps.
    return Timing(step_ms, prefill_ms, max(known - 5 * step_ms[1], 0.0)), (prefilled_tokens(cluster) - before) / 4


def run(cluster: Cluster, rate: float, seconds: float, seed: int) -> tuple[list[Job], list[float]]:
    """The questions that came, and how long each answer took."""
    random = np.random.default_rng(seed)
    jobs = [Job(at, 1, int(random.choice(_IDS))) for at in arrivals(rate, seconds, seed)]
    began = time.perf_counter()

    def one(number: int) -> float:
        time.sleep(max(began + jobs[number].at_s - time.perf_counter(), 0))
        ask(cluster, number + seed * 1000, jobs[number].ids)
        return time.perf_counter() - (began + jobs[number].at_s)

    return jobs, at_once([partial(one, number) for number in range(len(jobs))])


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seed", type=int, required=True)
@click.option("--rate", type=float, default=0.5, show_default=True, help="Questions a second.")
@click.option("--seconds", type=float, default=140.0, show_default=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def main(bundle: Path, seed: int, rate: float, seconds: float, out: Path) -> None:
    """Compare the simulation with BUNDLE on two replicas."""
    with Cluster(bundle=str(bundle.resolve()), backend="cpu", max_rows=8, cpus=1, ingresses=1) as cluster:
        timing, tokens = measure(cluster)
        click.echo(f"{timing}, {tokens:.1f} tokens of a new prompt")
        before = prefilled_tokens(cluster)
        jobs, real = run(cluster, rate, seconds, seed)
        # What a prompt shares with those before it is a matter of the questions: here they are alike.
        computed = (prefilled_tokens(cluster) - before) / len(jobs)
        timing = dataclasses.replace(timing, prefill_ms=timing.prefill_ms * computed / tokens, prefill_calls=max(round(computed / 32), 1))
    simulated = simulate(jobs, 2, timing, 8)
    report = json.loads(out.read_text()) if out.exists() else {"question": "does the simulation say what two replicas do"}
    report |= {"bundle": bundle.name, **where(), "rate": rate}
    runs = {each["seed"]: each for each in report.get("runs", [])}
    runs[seed] = {
        "seed": seed,
        "questions": len(jobs),
        "prefilled_tokens": {"measured": tokens, "of_a_question": computed},
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
